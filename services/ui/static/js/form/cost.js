// Hours and dollars of a plan in words.
import { dollars, number, seconds } from "../format.js";

const YEAR_H = 8766;

/** 3600 hours stay readable, and an absurd figure stays absurd: "about 12 h", "about 1,900 years". */
export function hours(h) {
  if (!Number.isFinite(h)) return "time unknown";
  if (h > 2 * YEAR_H) return `about ${number(Math.round(h / YEAR_H), 3)} years`;
  if (h > 24 * 60) return `about ${number(Math.round(h / 24), 3)} days`;
  return `about ${seconds(3600 * h)}`;
}

export const duration = (figures) => hours(figures.hours ?? NaN);
export const cost = (figures) => (figures.usd === null ? "price unknown" : figures.usd > 0 && figures.usd < 0.01 ? "under $0.01" : `about ${dollars(figures.usd)}`);

/** What the plan is for: "8 × H100", "1 CPU process". */
export const hardware = (figures) => (figures.gpu === "CPU" ? "1 CPU process" : figures.gpu ? `${figures.world_size} × ${figures.gpu}` : figures.world_size === 1 ? "1 process without a known GPU" : `${figures.world_size} processes without a known GPU`);
