// What people call the stages, on pages that are not about one run.
import { get } from "./api.js";

const names = new Map();

/** Read the names once, before `called` is asked for them. */
export async function readStageNames() {
  const { stages } = await get("/catalog");
  for (const stage of stages) names.set(stage.name, stage.short);
}

/** The name of a stage where there is little room. */
export const called = (stage) => names.get(stage) ?? stage;
