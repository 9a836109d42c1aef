// Colours, axes and marks of charts.
import { number, seconds } from "../format.js";

/** A colour or font of the theme, by the name of its token. */
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const DAY = 86_400;
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, DAY, 2 * DAY, 5 * DAY, 10 * DAY, 30 * DAY];
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const second = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** How an x axis is divided and labelled; `text` is one value in words. */
export function xAxis({ kind, log }) {
  if (kind === "time") {
    return {
      text: (x) => second.format(x * 1000),
      values: (_, splits, axis, space, step) => splits.map((x) => (step >= DAY ? day : step >= 60 ? minute : second).format(x * 1000)),
    };
  }
  const text = { duration: seconds, step: (x) => Math.round(x).toLocaleString("en") }[kind] ?? ((x) => number(x, 3));
  const values = (_, splits) => (kind === "duration" ? splits.map((x) => (x === null ? "" : seconds(x))) : labels(splits));
  return { text, values, ...(kind === "duration" && !log ? { incrs: TIMES } : {}), ...(kind === "step" && !log ? { incrs: STEPS } : {}), ...(log ? { splits: powers } : {}) };
}

/** The values where an axis is divided as texts, with as many digits as tell neighbours apart. Null has none: there is no room for it. */
export function labels(splits) {
  const there = splits.filter((x) => x !== null);
  const gap = Math.min(...there.slice(1).map((x, i) => Math.abs(x - there[i])));
  let digits = 3;
  while (digits < 9 && there.some((x) => Math.abs(Number(x.toPrecision(digits)) - x) > gap / 100)) digits++;
  return splits.map((x) => (x === null ? "" : number(x, digits)));
}

/** 1, 2 and 5 times each power of ten that is seen. */
function powers(u, axis, first, last) {
  const from = Math.floor(Math.log10(first));
  const found = [];
  for (let power = from; 10 ** power <= last; power++) for (const n of last / first < 1e3 ? [1, 2, 5] : [1]) found.push(n * 10 ** power);
  const inside = found.filter((x) => x >= first && x <= last);
  return inside.length > 1 ? inside : [first, last];
}

const STEPS = Array.from({ length: 12 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** i)).flat();

/** Marks of what happened: lines where an attempt resumed or a stage begins, small signs for the rest. */
export function paintMarks(u, marks) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  const [top, bottom] = [bbox.top, bbox.top + bbox.height];
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, 0, bbox.width, ctx.canvas.height);
  ctx.clip();
  for (const { x, kind, text } of marks) {
    const at = u.valToPos(x, "x", true);
    if (at < bbox.left - 9 * ratio || at > bbox.left + bbox.width + 9 * ratio) continue;
    if (kind === "stage" || kind === "resume") {
      ctx.strokeStyle = ctx.fillStyle = color(kind === "stage" ? "ink-3" : "warn");
      ctx.lineWidth = ratio;
      ctx.setLineDash(kind === "stage" ? [] : [4 * ratio, 3 * ratio]);
      line(ctx, [at, top], [at, bottom]);
      ctx.setLineDash([]);
      if (kind === "stage") {
        ctx.font = `${11 * ratio}px ${color("sans")}`;
        ctx.textAlign = "left";
        ctx.fillText(text, at + 4 * ratio, top + 11 * ratio);
      }
    } else if (kind === "checkpoint") {
      ctx.fillStyle = color("ink-2");
      shape(ctx, at, bottom - 5 * ratio, [[0, -4], [4, 0], [0, 4], [-4, 0]], ratio);
      ctx.fill();
    } else if (kind === "eval") {
      ctx.strokeStyle = color("ink-2");
      ctx.lineWidth = 1.5 * ratio;
      ctx.beginPath();
      ctx.arc(at, bottom - 15 * ratio, 3 * ratio, 0, 2 * Math.PI);
      ctx.stroke();
    } else if (kind === "nonfinite") {
      ctx.strokeStyle = color("bad");
      ctx.lineWidth = 2 * ratio;
      const [y, r] = [top + 22 * ratio, 4 * ratio];
      line(ctx, [at - r, y - r], [at + r, y + r]);
      line(ctx, [at - r, y + r], [at + r, y - r]);
    }
  }
  ctx.restore();
}

function line(ctx, from, to) {
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
}

function shape(ctx, x, y, corners, ratio) {
  ctx.beginPath();
  for (const [dx, dy] of corners) ctx.lineTo(x + dx * ratio, y + dy * ratio);
  ctx.closePath();
}
