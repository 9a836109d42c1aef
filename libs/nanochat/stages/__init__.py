"""One file per kind of stage, each with `run(ctx: StageContext) -> None`."""
