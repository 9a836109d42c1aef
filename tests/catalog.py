"""The tables of stages and metrics as a client of the API reads them."""

from client.models import Catalog
from services.api.catalog.endpoints import get_catalog

CATALOG = Catalog.model_validate(get_catalog(caller=None).model_dump())  # type: ignore[arg-type]
