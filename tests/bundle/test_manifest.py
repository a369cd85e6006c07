"""The published schemas are the ones in force, and bundles keep to them."""

from __future__ import annotations

import json

import jsonschema
import pytest

from edgedeploy.bundle.manifest import Manifest, Measurements


@pytest.mark.parametrize(("name", "model"), [("manifest", Manifest), ("measurements", Measurements)])
def test_the_published_schema_is_the_one_in_force(repository, name, model):
    published = json.loads((repository / "docs" / f"{name}.schema.json").read_text())
    assert published == model.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(published)
