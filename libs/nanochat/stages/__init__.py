"""One file a stage kind, each with `run(ctx: StageContext) -> None`."""
