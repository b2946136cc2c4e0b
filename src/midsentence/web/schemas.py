"""What may be asked, with bounds on everything: requests as pydantic models."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

TEXTS, CHARACTERS, POINTS = 64, 4096, 64
"""Of one request at most."""

READ = 1 << 19
"""Samples times bytes of a sentence that is scored at most: that is computed at one go, and a byte
may be a token."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=CHARACTERS, pattern=r"\S")]
Texts = Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=TEXTS)]
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Z = Annotated[list[Number], Field(fail_fast=True, min_length=1, max_length=65_536)]
Place = Text | Z
Count = Annotated[int, Field(ge=1, le=TEXTS)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Name = Annotated[str, StringConstraints(pattern=r"^\w[\w-]{0,63}$")]

SENTENCE = "the moon is up"


class Asked(BaseModel):
    """Nothing that isn't known is taken: a misspelt name is said, not ignored."""

    model_config = ConfigDict(extra="forbid")


class How(Asked):
    """How words are chosen: the keywords of `generate.Decoding`."""

    greedy: bool = False
    temperature: Annotated[float, Field(ge=0.05, le=5, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1000)] = 0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    typical: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    beam: Annotated[int, Field(ge=0, le=10)] = 0
    max_length: Annotated[int, Field(ge=1, le=256)] | None = None


class Writing(Asked):
    """What all requests for sentences share."""

    how: How | None = None
    seed: Seed = 0
    label: Annotated[str, StringConstraints(max_length=256)] | None = None

    def decoding(self) -> dict[str, Any]:
        """Keywords of `Decoding`; none where nothing was asked."""
        if self.how is None:
            return {}
        return self.how.model_dump(exclude_unset=True, exclude_none=True)


def example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


class Sample(Writing):
    model_config = example(n=3, seed=1, how={"temperature": 0.8})
    n: Count = 10


class Lines(Writing):
    model_config = example(texts=[SENTENCE])
    texts: Texts


class Decode(Writing):
    model_config = example(z=[[0.0, 0.0]])
    z: Annotated[list[Z], Field(fail_fast=True, min_length=1, max_length=POINTS)]


class Interpolate(Writing):
    model_config = example(a=SENTENCE, b="the sun is down", steps=5)
    a: Place
    b: Place
    steps: Annotated[int, Field(ge=2, le=POINTS)] = 7
    path: Literal["density", "linear", "spherical"] = "linear"
    nll: bool = False


class Scored(Writing):
    texts: Texts
    samples: int

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        if self.samples * max(len(text.encode("utf-8", "replace")) for text in self.texts) > READ:
            text = f"samples times bytes of a text may be {READ:,} at most"
            raise PydanticCustomError("too_much", text)
        return self


class Score(Scored):
    model_config = example(texts=[SENTENCE], samples=100)
    samples: Annotated[int, Field(ge=1, le=500)] = 100


class Neighbours(Writing):
    model_config = example(text=SENTENCE, n=5)
    text: Place
    n: Annotated[int, Field(ge=1, le=100)] = 10


class Analogy(Writing):
    model_config = example(a="he sings", b="she sings", c="he has a dog")
    a: Place
    b: Place
    c: Place


class Edit(Writing):
    model_config = example(text=SENTENCE, direction="question", strength=1.5)
    text: Place
    direction: Name
    strength: Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)] = 1.0


class Toward(Writing):
    model_config = example(text=SENTENCE, wanted=["question"], unwanted=[], method="gradient")
    text: Place
    wanted: Annotated[list[Name], Field(fail_fast=True, max_length=8)] = []
    unwanted: Annotated[list[Name], Field(fail_fast=True, max_length=8)] = []
    method: Literal["gradient", "ode"] = "gradient"


class Vary(Writing):
    model_config = example(text=SENTENCE, n=8, radius=1.0)
    text: Text
    n: Count = 8
    radius: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0


class Traverse(Writing):
    model_config = example(text=SENTENCE, dimensions=3, steps=5)
    text: Place
    dimensions: Annotated[int, Field(ge=1, le=16)] = 3
    steps: Annotated[int, Field(ge=2, le=15)] = 5
    span: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 2.0


class Denoise(Writing):
    model_config = example(texts=[SENTENCE], strength=0.5)
    texts: Texts
    strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    steps: Annotated[int, Field(ge=1, le=20)] = 1


class Outliers(Scored):
    model_config = example(texts=[SENTENCE, "up moon the is"], by="nll")
    by: Literal["nll", "distance"] = "nll"
    samples: Annotated[int, Field(ge=1, le=100)] = 20


class Clusters(Writing):
    model_config = example(count=8)
    count: Annotated[int, Field(ge=1, le=64)] = 8
    examples: Annotated[int, Field(ge=1, le=20)] = 3


class NewDirection(Writing):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "question", "from": ["it is up", "she sings"],
                          "to": ["is it up ?", "does she sing ?"]}]
        },
    )  # fmt: skip
    name: Name
    before: Texts = Field(alias="from")
    after: Texts = Field(alias="to")
    method: Literal["probe", "mean"] = "probe"


class Read(Writing):
    model_config = example(text=SENTENCE)
    text: Text


class Point(Writing):
    model_config = example(x=0.5, y=-1.0, n=4, how={"temperature": 1.0})
    x: Number
    y: Number
    view: Literal["pca", "umap"] = "pca"
    n: Annotated[int, Field(ge=0, le=16)] = 4


class Search(Asked):
    model_config = example(query="moon")
    query: Annotated[str, StringConstraints(min_length=1, max_length=256)]
