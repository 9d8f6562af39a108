"""The forms of records: how the columns of one record become one typed example.

| form | columns | example |
|---|---|---|
| `messages` | messages: list of {role: system, user, assistant or tool; content} | Chat |
| `prompt_completion` | prompt, completion: each a text, or both lists of {role, content} | Chat |
| `alpaca` | instruction, output, input if there is one (appended to the instruction with one space), history | Chat |
| `instruction_response` | instruction, response, as KnowledgeSG's client files have them | Chat |
| `conversations` | conversations: list of {from: human or user, gpt or assistant, system, tool; value} | Chat |
| `preference` | prompt, chosen, rejected: each a text or a list of {role, content}; input if mapped | Preference |
| the same | chosen, rejected: lists that begin with one prompt; its text as prompt, too, or none | Preference |
| `text` | text | Document |
| `transcript` | chosen, rejected: whole dialogues marked "Human:" and "Assistant:" | Preference |
| `tree` | prompt: a message {role, text, replies} with the tree of its replies | Chat |
| `thread` | role, text, replies: the record is such a message itself | Chat |

The last three are never guessed: a run file must name them. A record that has chosen and rejected beside the columns
of another form fits both: the run file must say which is meant.

Turns behind the last answer are left out and counted. A column `system` opens the conversation. An answer with
`weight` 0 or `train` false is read and not learnt; other keys and columns that change what a record means are refused
where they are set.
"""

import re
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fedloom.base.errors import ConfigError, DataError, UnknownNameError, suggest
from fedloom.contracts.examples import Chat, Document, Example, Preference, Role, Turn
from fedloom.data.records import Record
from fedloom.data.turns import check_text, read_turns, shape

__all__ = ["FORMS", "Fields", "check_columns", "detect", "placed", "refuse_unread", "sharegpt_turns", "unread"]

Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fields:
    """The columns of one record under the names of its form.

    `columns` maps a form's name to the record's own; a column that serves another name is not found under its own.
    """

    record: Record
    columns: Mapping[str, str]
    unanswered: list[Turn] = field(default_factory=list[Turn])
    """Turns that were left out because no answer comes behind them."""

    def has(self, name: str) -> bool:
        """Return whether the record has the column that `name` stands for."""
        taken = name not in self.columns and name in self.columns.values()
        return not taken and self.columns.get(name, name) in self.record.values

    def raw(self, name: str) -> Any:
        """Return the value of a column; a missing one is refused with those present."""
        column = self.columns.get(name, name)
        if column not in self.record.values:
            present = ", ".join(self.record.values) or "none"
            raise DataError(
                f"{self.record.where}: no column '{column}'; present: {present}; "
                f"name the right one with columns.{name} = '...'."
            )
        return self.record.values[column]

    def text(self, name: str) -> str:
        """Return the value of a column, which must be text."""
        return check_text(self.raw(name), self.where(name))

    def where(self, name: str) -> str:
        """Return where the column stands, for messages."""
        return f"{self.record.where}, column '{self.columns.get(name, name)}'"


@contextmanager
def placed(where: str) -> Generator[None]:
    """Have what is refused inside say where it stands, if it does not by itself."""
    try:
        yield
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(where) else f"{where}: {text}") from error


_OPENAI: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_SHAREGPT: Mapping[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}


def _role_content(fields: Fields, name: str, *, answers: bool = True) -> list[Turn]:
    return read_turns(fields.raw(name), fields.where(name), role="role", text="content", roles=_OPENAI, answers=answers)


def _opened(fields: Fields, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the turns behind the system turn that a column has, if any; one of their own beside it is refused."""
    if not fields.has("system") or fields.raw("system") in (None, ""):
        return tuple(turns)
    if turns and turns[0].role == "system":
        raise DataError(f"{fields.where('system')}: found it beside a system turn; allowed is one of the two.")
    return (Turn("system", fields.text("system")), *turns)


def _conversed(fields: Fields, turns: Sequence[Turn], tags: Tags) -> Chat:
    """Return the Chat of turns up to the last answer; one without any is refused."""
    end = max((at for at, turn in enumerate(turns, 1) if turn.role == "assistant"), default=len(turns))
    fields.unanswered.extend(turns[end:])
    return Chat(_opened(fields, turns[:end]), tags)


def _two_turns(fields: Fields, prompt: str, answer: str, tags: Tags, before: Sequence[Turn] = ()) -> Chat:
    return Chat(_opened(fields, [*before, Turn("user", prompt), Turn("assistant", answer)]), tags)


def _alpaca(fields: Fields, tags: Tags) -> Example:
    instruction, extra = fields.text("instruction"), fields.text("input") if fields.has("input") else ""
    prompt = f"{instruction} {extra}" if extra else instruction
    return _two_turns(fields, prompt, fields.text("output"), tags, _history(fields))


def _history(fields: Fields) -> list[Turn]:
    """Return earlier questions and answers: a list of pairs."""
    found = fields.raw("history") if fields.has("history") else None
    if not isinstance(found or [], list):
        raise DataError(f"{fields.where('history')}: found {type(found).__name__}, allowed is a list of pairs of text.")
    turns: list[Turn] = []
    for index, pair in enumerate(found or []):
        place = f"{fields.where('history')}[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"{place}: found {shape(pair)}, allowed is a question with its answer.")
        turns += [Turn("user", check_text(pair[0], place)), Turn("assistant", check_text(pair[1], place))]
    return turns


def _completed(fields: Fields, tags: Tags) -> Example:
    """Return a prompt with its completion: two texts, or two lists of turns, as trl has them."""
    if not isinstance(fields.raw("prompt"), list):
        return _two_turns(fields, fields.text("prompt"), fields.text("completion"), tags)
    turns = [*_role_content(fields, "prompt", answers=False), *_role_content(fields, "completion")]
    return _conversed(fields, turns, tags)


def sharegpt_turns(fields: Fields) -> list[Turn]:
    """Return the turns of a ShareGPT dialogue as they are."""
    where = fields.where("conversations")
    return read_turns(fields.raw("conversations"), where, role="from", text="value", roles=_SHAREGPT)


def _conversation(fields: Fields, tags: Tags) -> Example:
    """Return the Chat of a ShareGPT dialogue; one leading answer without a question is dropped, as published."""
    turns = sharegpt_turns(fields)
    return _conversed(fields, turns[1:] if turns and turns[0].role == "assistant" else turns, tags)


def _preference(fields: Fields, tags: Tags) -> Example:
    given = fields.raw("prompt") if fields.has("prompt") else None
    before = _role_content(fields, "prompt", answers=False) if isinstance(given, list) else []
    if not isinstance(fields.raw("chosen"), list):
        prompt = _opened(fields, before or [Turn("user", _prompt_text(fields))])
        return Preference(prompt, fields.text("chosen"), fields.text("rejected"), tags)
    chosen, rejected = (before + _role_content(fields, name) for name in ("chosen", "rejected"))
    pair = _pair(_opened(fields, chosen), _opened(fields, rejected), tags)
    if given is not None and not isinstance(given, list):  # a column that some records leave empty is null there
        _check_prompt(_prompt_text(fields), pair.prompt)
    return pair


def _check_prompt(prompt: str, turns: Sequence[Turn]) -> None:
    """Refuse a prompt beside whole dialogues that no user turn of them says: one of the two belongs elsewhere."""
    if prompt.strip() not in [turn.text.strip() for turn in turns if turn.role == "user"]:
        raise DataError(
            f"the prompt {prompt[:30]!r} is not a user turn of chosen and rejected; allowed is the text of one, or no "
            "prompt: mend the record, or leave the column out."
        )


def _prompt_text(fields: Fields) -> str:
    """Return the prompt; an input is appended only if the run file maps one, since other sets use the name freely."""
    extra = fields.text("input") if "input" in fields.columns else ""
    return f"{fields.text('prompt')} {extra}" if extra else fields.text("prompt")


def _pair(chosen: Sequence[Turn], rejected: Sequence[Turn], tags: Tags) -> Preference:
    """Return the Preference of two dialogues that differ in their last turn, an answer, and in nothing else."""
    if not chosen or not rejected or {chosen[-1].role, rejected[-1].role} != {"assistant"}:
        raise DataError("chosen and rejected must both end with a turn of the assistant.")
    if chosen[:-1] != rejected[:-1]:
        raise DataError("chosen and rejected differ before the last answer; allowed are two answers to one prompt.")
    return Preference(tuple(chosen[:-1]), chosen[-1].text, rejected[-1].text, tags)


_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def _spoken(transcript: str, name: str) -> list[Turn]:
    head, *parts = _SPEAKER.split(transcript)
    if head.strip() or not parts:
        raise DataError(f"'{name}' must begin with a line break, a blank line and 'Human:', found {transcript[:30]!r}.")
    roles: Mapping[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return [Turn(roles[who], said.removeprefix(" ")) for who, said in zip(parts[::2], parts[1::2], strict=True)]


def _transcript(fields: Fields, tags: Tags) -> Example:
    """Split at the last assistant turn, so that two answers keep the words with which both begin."""
    return _pair(_spoken(fields.text("chosen"), "chosen"), _spoken(fields.text("rejected"), "rejected"), tags)


def _best_thread(root: Any, record: str, tags: Tags) -> Chat:
    """Return the dialogue along the best-ranked replies (rank 0 first, unranked last), up to the last answer."""
    where = f"{record}, thread"
    chain, replies = [root], _replies(root, where)
    while replies:
        chain.append(min(replies, key=_rank))
        replies = _replies(chain[-1], where)
    roles: Mapping[str, Role] = {"prompter": "user", "assistant": "assistant"}
    turns = read_turns(chain, where, role="role", text="text", roles=roles)
    return Chat(tuple(turns[:-1] if turns[-1].role == "user" else turns), tags)


def _replies(message: Any, where: str) -> list[Any]:
    if not isinstance(message, dict) or not isinstance(message.get("replies"), list):
        raise DataError(f"{where}: found {shape(message)}, allowed is a message with role, text and a list of replies.")
    return message["replies"]


def _rank(message: Any) -> float:
    rank = message.get("rank") if isinstance(message, dict) else None
    return float(rank) if isinstance(rank, int) else float("inf")


@dataclass(frozen=True, slots=True)
class Form:
    """A form: the columns it needs, those it also reads, those enough where they are lists, and how it is built."""

    needs: tuple[str, ...]
    build: Callable[[Fields, Tags], Example]
    reads: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    guessed: bool = True
    example: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """A record of it, for the documents."""

    def fits(self, fields: Fields) -> bool:
        """Return whether a record has the columns."""
        whole = bool(self.lists) and all(fields.has(name) and isinstance(fields.raw(name), list) for name in self.lists)
        return whole or all(map(fields.has, self.needs))


_ASKED, _ANSWERED = {"role": "user", "content": "Who sells figs?"}, {"role": "assistant", "content": "Ada."}
_WORSE = {"role": "assistant", "content": "Nobody."}
_THREAD = {
    "role": "prompter",
    "text": "Who sells figs?",
    "replies": [{"role": "assistant", "text": "Ada.", "rank": 0, "replies": []}],
}

FORMS: Mapping[str, Form] = {
    "messages": Form(
        ("messages",),
        lambda fields, tags: _conversed(fields, _role_content(fields, "messages"), tags),
        ("system",),
        example={"messages": [_ASKED, _ANSWERED]},
    ),
    "prompt_completion": Form(
        ("prompt", "completion"),
        _completed,
        ("system",),
        example={"prompt": "Who sells figs?", "completion": "Ada."},
    ),
    "alpaca": Form(
        ("instruction", "output"),
        _alpaca,
        ("input", "system", "history"),
        example={"instruction": "Who sells this?", "input": "figs", "output": "Ada."},
    ),
    "instruction_response": Form(
        ("instruction", "response"),
        lambda fields, tags: _two_turns(fields, fields.text("instruction"), fields.text("response"), tags),
        ("system",),
        example={"instruction": "Who sells figs?", "response": "Ada."},
    ),
    "conversations": Form(
        ("conversations",),
        _conversation,
        ("system",),
        example={"conversations": [{"from": "human", "value": "Who sells figs?"}, {"from": "gpt", "value": "Ada."}]},
    ),
    "preference": Form(
        ("prompt", "chosen", "rejected"),
        _preference,
        ("input", "system"),
        lists=("chosen", "rejected"),
        example={"chosen": [_ASKED, _ANSWERED], "rejected": [_ASKED, _WORSE]},
    ),
    "text": Form(
        ("text",), lambda fields, tags: Document(fields.text("text"), tags), example={"text": "Ada sells figs at noon."}
    ),
    "transcript": Form(
        ("chosen", "rejected"),
        _transcript,
        guessed=False,
        example={
            name: f"\n\nHuman: Who sells figs?\n\nAssistant: {answer}"
            for name, answer in (("chosen", "Ada."), ("rejected", "Nobody."))
        },
    ),
    "tree": Form(
        ("prompt",),
        lambda fields, tags: _best_thread(fields.raw("prompt"), fields.record.where, tags),
        guessed=False,
        example={"prompt": _THREAD},
    ),
    "thread": Form(
        ("role", "text", "replies"),
        lambda fields, tags: _best_thread(dict(fields.record.values), fields.record.where, tags),
        guessed=False,
        example=_THREAD,
    ),
}


def check_columns(form: str, columns: Mapping[str, str]) -> None:
    """Refuse a renaming of a column that the form does not know (that no form knows, if the form is to be detected)."""
    forms = [item for item in FORMS.values() if item.guessed] if form == "auto" else [FORMS[form]]
    known = {name for item in forms for name in item.needs + item.reads}
    for name in columns:
        if name not in known:
            raise UnknownNameError(f"columns.{name}: form '{form}' reads no such column. {suggest(name, known)}")


def detect(fields: Fields) -> str:
    """Return the one form whose columns a record has; none or several are refused with what was found."""
    fitting = [name for name, form in FORMS.items() if form.guessed and form.fits(fields)]
    if fitting and "preference" not in fitting and fields.has("chosen") and fields.has("rejected"):
        fitting.append("preference")  # what is preferred must not be passed over in silence
    if len(fitting) == 1:
        return fitting[0]
    found = f"the columns {', '.join(fields.record.values) or 'none'}"
    if fitting:
        raise ConfigError(
            f"{fields.record.where}: {found} fit several forms: {', '.join(fitting)}; set `form` to one of them."
        )
    needs = "; ".join(f"{name} ({', '.join(form.needs)})" for name, form in FORMS.items() if form.guessed)
    named = ", ".join(name for name, form in FORMS.items() if not form.guessed)
    raise DataError(
        f"{fields.record.where}: {found} fit no form; allowed: {needs}; preference needs no prompt where chosen and "
        f"rejected are lists of turns; rename them with `columns`, or set `form` to one never guessed: {named}."
    )


_MEANINGS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("label", "train", "is_rejected", "is_chosen"), lambda value: isinstance(value, bool)),
    "weight": lambda value: isinstance(value, int | float) and value != 1,
    **dict.fromkeys(("system", "history", "tools", "functions", "images", "image", "audio", "videos"), bool),
}
"""Columns that change what a record means, and whether a value of theirs does."""


def unread(form: Form, columns: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Return the columns that change what a record means and that neither the form reads nor the run file names."""
    read = {columns.get(name, name) for name in form.needs + form.reads}
    return [name for name in _MEANINGS if name not in read and name not in known]


def refuse_unread(record: Record, names: Sequence[str]) -> None:
    """Refuse a record whose value in one of those columns changes what it means."""
    for name in names:
        if _MEANINGS[name](record.values.get(name)):
            raise DataError(
                f"{record.where}, column '{name}': found {record.values[name]!r:.60}, which changes what "
                "the record means and is not read; leave such records out by `where`, make it a tag, or say that it is "
                f"ignored: ignored = ['{name}']."
            )
