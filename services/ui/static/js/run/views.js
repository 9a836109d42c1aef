// The tabs of a run's page, in the order shown. The first is shown unless the URL names another.
export const VIEWS = [
  { id: "metrics", title: "Metrics", load: () => import("./tabs/metrics.js") },
  { id: "evals", title: "Evals", load: () => import("./tabs/evals.js") },
  { id: "samples", title: "Samples", load: () => import("./tabs/samples.js") },
  { id: "checkpoints", title: "Checkpoints", load: () => import("./tabs/checkpoints.js") },
  { id: "log", title: "Log", load: () => import("./tabs/log.js") },
  { id: "events", title: "Events", load: () => import("./tabs/events.js") },
  { id: "config", title: "Config", load: () => import("./tabs/config.js") },
  { id: "lineage", title: "Lineage", load: () => import("./tabs/lineage.js") },
  { id: "report", title: "Report", load: () => import("./tabs/report.js") },
];
