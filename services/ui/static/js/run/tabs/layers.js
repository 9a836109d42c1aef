// A small layered layout of stages (after Sugiyama): a column for each depth, edges that a longer path implies left out. No DOM.

/**
 * @param {string[]} ids in an order in which producers precede consumers
 * @param {[string, string][]} edges source, target
 * @returns {{columns: string[][], edges: [string, string][]}}
 */
export function layers(ids, edges) {
  const from = new Map(ids.map((id) => [id, new Set()]));
  for (const [source, target] of edges) if (source !== target && from.has(source) && from.has(target)) from.get(target).add(source);
  const reached = new Map(); // id → all that it was made from
  const depth = new Map();
  for (const id of ids) {
    const all = new Set();
    let level = 0;
    for (const source of from.get(id)) {
      all.add(source);
      for (const before of reached.get(source) ?? []) all.add(before);
      level = Math.max(level, (depth.get(source) ?? 0) + 1);
    }
    reached.set(id, all);
    depth.set(id, level);
  }
  const columns = [];
  for (const id of ids) (columns[depth.get(id)] ??= []).push(id);
  const kept = ids.flatMap((id) => {
    const sources = [...from.get(id)];
    return sources.filter((s) => !sources.some((other) => other !== s && reached.get(other).has(s))).map((s) => [s, id]);
  });
  return { columns: columns.filter(Boolean), edges: kept };
}
