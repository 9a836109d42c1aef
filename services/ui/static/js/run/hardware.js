// What the GPUs of a run report, by step. A CPU reports none of it.
export const HARDWARE = [{ id: "memory", keys: ["mem_gib"], none: "Memory of GPUs is left out: the stages of this run work on a CPU." }];
