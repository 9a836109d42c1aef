// The points of the curves as a table for readers, and as files to keep.
import { h } from "../dom.js";
import { download } from "../download.js";
import { number, time } from "../format.js";

const ROWS = 25;

/** The newest points of each curve, so that nobody needs to see the drawing. */
export function table(runs, pick, short) {
  return runs.flatMap(({ run, points }) =>
    points.series.filter((s) => pick(points)(s.stage).some((m) => m.key === s.key)).map((s) =>
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${short(s.stage)} ${s.key}` }, h("table", null,
        h("caption", null, `${run.name} · ${short(s.stage)} · ${s.key}, the newest of ${number(s.points.length)} points`),
        h("thead", null, h("tr", null, ["Step", "Value", "Smallest", "Largest", "Time"].map((x) => h("th", { scope: "col" }, x)))),
        h("tbody", null, s.points.slice(-ROWS).reverse().map((p) => h("tr", null, h("td", null, number(p.step)),
          [p.last, p.min, p.max].map((v) => h("td", null, v === null ? "not finite" : number(v))), h("td", null, time(p.t)))))))));
}

export function saveCsv(runs, run) {
  const cell = (text) => (/[",\n]|^[=+\-@]/.test(text) ? `"${String(text).replaceAll('"', '""').replace(/^([=+\-@])/, "'$1")}"` : text);
  const rows = ["run,run_name,stage,metric,step,time_utc,last,min,max,not_finite"];
  for (const one of runs) {
    for (const s of one.points.series) {
      for (const p of one.points.drawn(s)) rows.push([one.run.id, cell(one.run.name), s.stage, s.key, p.step, new Date(p.t * 1000).toISOString(), p.last ?? "", p.min ?? "", p.max ?? "", p.nonfinite].join(","));
    }
  }
  download(`${run.id}-curves.csv`, `${rows.join("\n")}\n`, "text/csv");
}

export const savePng = (blob, run) => download(`${run.id}-curve.png`, blob, "image/png");
