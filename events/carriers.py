"""Generates the Python carrier types from the schemas: `python events/carriers.py [--check]`.

Generators do not follow references between files reliably, so all schemas are first merged into one document whose
`$defs` hold every named type. Constraints are left out: the types only carry, validation is the schema itself
(events/README.md).
"""

import difflib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
TARGET = ROOT / "octollm" / "events" / "carrier.py"
HEADER = '"""Carrier types, generated from events/schemas by events/carriers.py: do not edit."""\n\n'

# Shared definitions live in these; every other schema is one message.
SHARED = ("contract", "error", "plan", "receipt", "record")
CONSTRAINTS = (
    {"minLength", "maxLength", "pattern", "minimum", "maximum", "minItems", "maxItems"}
    | {"uniqueItems", "format", "contentEncoding", "default", "examples", "$schema", "$id"}
)  # fmt: skip


def carried(node: Any, named: bool = True) -> Any:
    """The part of a schema that a type can carry, with references made local; `named`: keep the description."""
    if isinstance(node, list):
        return [carried(item, named=False) for item in node]
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            kept[key] = {name: carried(schema, named=False) for name, schema in value.items()}
        elif key == "$ref":
            kept[key] = f"#/$defs/{value.rsplit('/', 1)[1]}"
        elif key not in CONSTRAINTS and (named or key != "description"):
            kept[key] = carried(value, named=False)
    return kept


def bundle() -> dict[str, Any]:
    """All schemas as one document: the messages by their titles and the shared definitions side by side."""
    definitions: dict[str, Any] = {}
    for path in sorted((ROOT / "schemas").glob("*/v*.json")):
        document = json.loads(path.read_text())
        named = document["$defs"] if path.parent.name in SHARED else {document["title"]: document}
        if clash := definitions.keys() & named.keys():
            raise SystemExit(f"{path}: these names are taken: {sorted(clash)}")
        definitions |= {name: carried(schema) for name, schema in named.items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}


def generate() -> str:
    """The text of carrier.py."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "bundle.json"), Path(folder, "carrier.py")
        source.write_text(json.dumps(bundle()))
        subprocess.run(
            [
                str(Path(sys.executable).with_name("datamodel-codegen")),
                *("--input", str(source), "--input-file-type", "jsonschema", "--output", str(target)),
                *("--output-model-type", "msgspec.Struct", "--base-class", "octollm.events.payload.Payload"),
                *("--target-python-version", "3.11", "--keyword-only", "--use-title-as-name"),
                *("--use-standard-collections", "--use-union-operator", "--use-schema-description"),
                *("--strict-nullable", "--disable-timestamp", "--disable-warnings"),
            ],
            check=True,
        )
        text = target.read_text()
    text = re.sub(r"\A(#.*\n|\n)+", "", text)
    # The bundle itself is no message.
    text = text.replace("Model: TypeAlias = Any\n", "", 1)
    # The generator knows no frozen structs; the base says it too, but a type checker wants it on each class.
    text = HEADER + text.replace("kw_only=True", "frozen=True, kw_only=True")
    ruff = str(Path(sys.executable).with_name("ruff"))
    for command in (["check", "--fix", "--select", "F,I,UP", "-q", "-"], ["format", "-q", "-"]):
        name = ["--stdin-filename", str(TARGET)]
        text = subprocess.run([ruff, *command, *name], input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> None:
    """Writes carrier.py, or with --check says how it differs from the schemas."""
    text = generate()
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(text)
    elif text != (current := TARGET.read_text() if TARGET.exists() else ""):
        sys.stdout.writelines(
            difflib.unified_diff(current.splitlines(True), text.splitlines(True), "carrier.py", "schemas")
        )
        raise SystemExit("carrier.py does not follow the schemas: run `python events/carriers.py`")


if __name__ == "__main__":
    main()
