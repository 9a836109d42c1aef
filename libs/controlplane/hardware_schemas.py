"""The read model of a run's hardware, in the shape in which the HTTP API answers it: columns, because a run has thousands of samples."""

from __future__ import annotations

from pydantic import BaseModel, Field

Column = list[float | None]


class FigureView(BaseModel):
    """One figure of a device, a value for each bucket; null where the device did not tell it."""

    mean: Column = Field(description="Mean of the samples in the bucket.")
    min: Column = Field(description="Smallest of them.")
    max: Column = Field(description="Largest of them.")


class DeviceView(BaseModel):
    """A GPU that attempts of the run held, or a machine that they ran on, in buckets of neighbouring samples.

    A figure is null if the device never told it.
    """

    worker: str = Field(description="Id of the worker on whose machine it is.")
    gpu: int | None = Field(
        description="Number of the GPU on its machine, counted from 0; null for the machine itself, with its processors and its memory."
    )
    t: list[float] = Field(description="Unix time of the newest sample in each bucket, in seconds, growing.")
    activity_pct: FigureView | None = Field(
        description="Per cent. Of a GPU the share of the last second in which it computed; of a machine the activity of all its "
        "processors since the sample before, whatever ran on them."
    )
    memory_gib: FigureView | None = Field(description="Memory in use in GiB, whatever used it.")
    power_w: FigureView | None = Field(description="Power in watts; null for a machine.")
    temperature_c: FigureView | None = Field(description="Temperature in degrees Celsius; null for a machine.")


class HardwareView(BaseModel):
    """How busy the GPUs and the machines of a run were. Samples are about ten seconds apart while a stage runs."""

    devices: list[DeviceView] = Field(
        description="By worker; the machine first, then its GPUs by their numbers. Empty if nothing was sampled."
    )
