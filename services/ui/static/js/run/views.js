// The tabs of a run's page, in the order shown. The first is shown unless the URL names another.
export const VIEWS = [
  { id: "metrics", title: "Metrics", load: () => import("./metrics.js") },
];
