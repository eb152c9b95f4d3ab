from __future__ import annotations

import json

import jax
import numpy

from itrpo.results.provenance import provenance


def test_provenance_is_json_and_names_what_ran():
    found = provenance()
    json.dumps(found, allow_nan=False)
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["numpy"] == numpy.__version__
    assert len(found["devices"]) == jax.device_count()
    assert found["git"] is None or len(found["git"]["commit"]) == 40
