"""The ledger as a parameter type. With `ledger: Ledger`, `with ledger.begin() as session` is one transaction."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from controlplane.db import SessionFactory


def _ledger(request: Request) -> SessionFactory:
    factory: SessionFactory = request.app.state.ledger
    return factory


Ledger = Annotated[SessionFactory, Depends(_ledger)]
