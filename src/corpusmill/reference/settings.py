"""Every setting of a recipe with its type, default and docstring, from the pydantic models."""

from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from corpusmill.ablation.config import AblationRecipe
from corpusmill.config import StageConfig
from corpusmill.recipe import Recipe
from corpusmill.reference.markdown import page, prose
from corpusmill.reference_model_recipe import ReferenceModelRecipe
from corpusmill.refiner_recipe import RefinerRecipe

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def settings_page() -> str:
    """Returns the page of all settings: the recipe, its stages, and what stands inside their settings."""
    introduction = (
        "A recipe is one YAML file. Unknown keys are errors. None in the texts is `null` in YAML and means off where "
        "nothing else is said; 0 is a number."
    )
    return page("Settings of a recipe", introduction, _blocks(Recipe))


def refiner_settings_page() -> str:
    """Returns the page of the settings of a refiner recipe."""
    introduction = (
        "A refiner recipe is one YAML file in `dags/refiners`; `build_refiner_<name>` is built from it. Relative file "
        "names are taken from the file's folder, and `$VARIABLES` in them are filled in."
    )
    return page("Settings of a refiner recipe", introduction, _blocks(RefinerRecipe))


def reference_model_settings_page() -> str:
    """Returns the page of the settings of a reference model recipe."""
    introduction = (
        "A reference model recipe is one YAML file in `dags/reference_models`; `build_reference_model_<name>` is built "
        "from it. Relative file names are taken from the file's folder."
    )
    return page("Settings of a reference model recipe", introduction, _blocks(ReferenceModelRecipe))


def ablation_settings_page() -> str:
    """Returns the page of the settings of an ablation."""
    introduction = (
        "An ablation is one YAML file in `dags/ablations`; `ablation_<name>` is built from it, and "
        "`corpusmill ablation --recipe FILE --out DIR` runs it without Airflow."
    )
    return page("Settings of an ablation", introduction, _blocks(AblationRecipe))


def _blocks(recipe: type[StageConfig]) -> Iterator[str]:
    yield from (prose(recipe.__doc__), _settings(recipe))
    stages = {name: model for name, field in recipe.model_fields.items() for model in setting_classes(field.annotation)}
    for name, model in stages.items():
        yield from (f"## {name}", prose(model.__doc__), _settings(model))
    for model in inner_classes(stages.values()):
        yield from (f"## {model.__name__}", prose(model.__doc__), _settings(model))


def inner_classes(outer: Iterable[type[StageConfig]]) -> list[type[StageConfig]]:
    """Returns the setting classes inside others, each once, in order of first mention."""
    found: dict[type[StageConfig], None] = {}
    waiting = list(outer)
    while waiting:
        fields = waiting.pop(0).model_fields.values()
        new = [model for field in fields for model in setting_classes(field.annotation) if model not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def setting_classes(annotation: Any) -> list[type[StageConfig]]:
    """Returns the setting classes that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, StageConfig):
        return [annotation]
    return [model for part in get_args(annotation) for model in setting_classes(part)]


def _settings(model: type[StageConfig]) -> str:
    return "\n".join(_setting(name, field) for name, field in model.model_fields.items())


def _setting(name: str, field: FieldInfo) -> str:
    return f"- **`{name}`** ({_type(field.annotation)}{_bounds(field.metadata)}; {_default(field)}): " + prose(
        field.description
    )


def _type(annotation: Any) -> str:
    """Returns a type in the words of YAML."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in parts)
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is Annotated:
        metadata = [inner for part in parts[1:] for inner in getattr(part, "metadata", [part])]
        return _type(parts[0]) + _bounds(metadata)
    if origin is tuple:
        return f"list of {_type(parts[0])}"
    if len(parts) == 2:
        return f"mapping of {_type(parts[0])} to {_type(parts[1])}"
    if annotation is NoneType:
        return "`null`"
    names = {"str": "string", "int": "integer", "float": "number", "bool": "true or false", "Any": "anything"}
    name: str = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _bounds(metadata: Iterable[Any]) -> str:
    bounds = [(sign, getattr(item, key, None)) for item in metadata for key, sign in SIGNS.items()]
    return "".join(f" {sign} {bound:g}" for sign, bound in bounds if bound is not None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, StageConfig):
        return "its own defaults"
    if value is None or isinstance(value, bool):
        return f"default `{'null' if value is None else str(value).lower()}`"
    if isinstance(value, tuple):
        return f"default `[{', '.join(map(str, value))}]`"
    return f"default `{value}`" if value != "" else "default empty"
