// GPUs and disks of a machine, as its workers last measured them.
import { h } from "../dom.js";
import { DASH, number } from "../format.js";
import { bar } from "../progress.js";
import { mark } from "../parts.js";

const FULL = [[0.05, "bad", "Almost full"], [0.15, "warn", "Filling up"]]; // by the share that is free

export function gpus(devices) {
  return devices.length > 0 && h("ul", { class: "devices", "aria-label": "GPUs" }, devices.map((gpu) => h("li", null,
    h("span", { title: gpu.name }, `GPU ${gpu.index}`),
    bar(gpu.memory_used_gib === null ? NaN : gpu.memory_used_gib / gpu.memory_total_gib, "active", `Memory of GPU ${gpu.index}`),
    h("span", { title: "Memory" }, used(gpu.memory_used_gib, gpu.memory_total_gib, "GiB")),
    h("span", { title: "Power" }, used(gpu.power_w, gpu.power_limit_w, "W")),
    h("span", { title: "Temperature" }, gpu.temperature_c === null ? DASH : `${Math.round(gpu.temperature_c)} °C`),
    h("span", { title: "Share of the last second in which it computed" }, gpu.activity_pct === null ? DASH : `${Math.round(gpu.activity_pct)} % active`))));
}

export function disks(found) {
  return found.map((disk) => {
    const free = disk.free_gib / disk.total_gib;
    const [, tone, told] = FULL.find(([limit]) => free < limit) ?? [0, "", ""];
    return h("div", { class: "disk" },
      h("span", { title: disk.path }, `Disk of ${disk.what}`), bar(1 - free, tone, `Disk of ${disk.what}`),
      h("span", null, `${number(disk.free_gib, 3)} GiB free of ${number(disk.total_gib, 4)}`), told && mark("▲", told, tone));
  });
}

const used = (now, most, unit) => (now === null ? DASH : `${number(now, 3)}${most === null ? "" : ` of ${number(most, 3)}`} ${unit}`);
