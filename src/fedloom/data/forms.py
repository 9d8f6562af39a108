"""The forms of records: how the columns of one record become one typed example.

| form | columns | example |
|---|---|---|
| `messages` | messages: list of {role, content} | Chat |
| `prompt_completion` | prompt, completion | Chat |
| `alpaca` | instruction, output, input if there is one (appended to the instruction with one space) | Chat |
| `instruction_response` | instruction, response, as KnowledgeSG's client files have them | Chat |
| `conversations` | conversations: list of {from: human, gpt or system; value} (ShareGPT) | Chat |
| `preference` | prompt, chosen, rejected: each a text or a list of {role, content}; input if mapped | Preference |
| the same | chosen, rejected: lists that begin with one prompt; its text as prompt, too, or none | Preference |
| `text` | text | Document |
| `transcript` | chosen, rejected: whole dialogues marked "Human:" and "Assistant:" | Preference |
| `tree` | prompt: a message {role, text, replies} with the tree of its replies | Chat |
| `thread` | role, text, replies: the record is such a message itself | Chat |

The last three are never guessed: a run file must name them. A record that has chosen and rejected beside the columns
of another form fits both: the run file must say which is meant.
"""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedloom.base.errors import ConfigError, DataError, UnknownNameError, suggest
from fedloom.contracts.examples import Chat, Document, Example, Preference, Role, Turn
from fedloom.data.records import Record

__all__ = ["FORMS", "Fields", "check_columns", "check_text", "detect", "placed", "sharegpt_turns"]

Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fields:
    """The columns of one record under the names of its form.

    `columns` maps a form's name to the record's own; a column that serves another name is not found under its own.
    """

    record: Record
    columns: Mapping[str, str]

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


def check_text(value: Any, where: str) -> str:
    """Return a value that is text; null, NaN, any other type and half a surrogate pair are refused."""
    if not isinstance(value, str):
        found = "null" if value is None else f"{value!r}" if isinstance(value, float) else type(value).__name__
        raise DataError(f"{where}: found {found}, allowed is text.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: character {error.start} is half a surrogate pair, allowed is text.") from error
    return value


def _turns(value: Any, where: str, *, role: str, text: str, roles: Mapping[str, Role]) -> list[Turn]:
    """Return the turns of a list of {role: ..., text: ...} objects, the two keys named by the arguments."""
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: found {type(value).__name__}, allowed is a list of turns.")
    turns: list[Turn] = []
    for index, item in enumerate(value):
        place = f"{where}[{index}]"
        if not isinstance(item, dict) or role not in item or text not in item:
            raise DataError(f"{place}: found {_shape(item)}, allowed is an object with '{role}' and '{text}'.")
        spoken_by = check_text(item[role], f"{place}.{role}")
        if spoken_by not in roles:
            raise DataError(f"{place}: '{role}' is {spoken_by!r}, allowed are {', '.join(roles)}.")
        turns.append(Turn(roles[spoken_by], check_text(item[text], f"{place}.{text}")))
    return turns


def _shape(item: Any) -> str:
    return f"the keys {', '.join(map(str, item)) or 'none'}" if isinstance(item, dict) else type(item).__name__


_OPENAI: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT: Mapping[str, Role] = {"system": "system", "human": "user", "gpt": "assistant"}


def _role_content(fields: Fields, name: str) -> list[Turn]:
    return _turns(fields.raw(name), fields.where(name), role="role", text="content", roles=_OPENAI)


def _two_turns(prompt: str, answer: str, tags: Tags) -> Chat:
    return Chat((Turn("user", prompt), Turn("assistant", answer)), tags)


def _alpaca(fields: Fields, tags: Tags) -> Example:
    instruction, extra = fields.text("instruction"), fields.text("input") if fields.has("input") else ""
    return _two_turns(f"{instruction} {extra}" if extra else instruction, fields.text("output"), tags)


def sharegpt_turns(fields: Fields) -> list[Turn]:
    """Return the turns of a ShareGPT dialogue as they are."""
    where = fields.where("conversations")
    return _turns(fields.raw("conversations"), where, role="from", text="value", roles=_SHAREGPT)


def _conversation(fields: Fields, tags: Tags) -> Example:
    """Return the Chat of a ShareGPT dialogue; one leading answer without a question is dropped, as published."""
    turns = sharegpt_turns(fields)
    return Chat(tuple(turns[1:] if turns and turns[0].role == "assistant" else turns), tags)


def _preference(fields: Fields, tags: Tags) -> Example:
    given = fields.raw("prompt") if fields.has("prompt") else None
    before = _role_content(fields, "prompt") if isinstance(given, list) else []
    if not isinstance(fields.raw("chosen"), list):
        prompt = before or [Turn("user", _prompt_text(fields))]
        return Preference(tuple(prompt), fields.text("chosen"), fields.text("rejected"), tags)
    chosen, rejected = (before + _role_content(fields, name) for name in ("chosen", "rejected"))
    pair = _pair(chosen, rejected, tags)
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
    turns = _turns(chain, where, role="role", text="text", roles=roles)
    return Chat(tuple(turns[:-1] if turns[-1].role == "user" else turns), tags)


def _replies(message: Any, where: str) -> list[Any]:
    if not isinstance(message, dict) or not isinstance(message.get("replies"), list):
        raise DataError(
            f"{where}: found {_shape(message)}, allowed is a message with role, text and a list of replies."
        )
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

    def fits(self, fields: Fields) -> bool:
        """Return whether a record has the columns."""
        whole = bool(self.lists) and all(fields.has(name) and isinstance(fields.raw(name), list) for name in self.lists)
        return whole or all(map(fields.has, self.needs))


FORMS: Mapping[str, Form] = {
    "messages": Form(("messages",), lambda fields, tags: Chat(tuple(_role_content(fields, "messages")), tags)),
    "prompt_completion": Form(
        ("prompt", "completion"),
        lambda fields, tags: _two_turns(fields.text("prompt"), fields.text("completion"), tags),
    ),
    "alpaca": Form(("instruction", "output"), _alpaca, reads=("input",)),
    "instruction_response": Form(
        ("instruction", "response"),
        lambda fields, tags: _two_turns(fields.text("instruction"), fields.text("response"), tags),
    ),
    "conversations": Form(("conversations",), _conversation),
    "preference": Form(("prompt", "chosen", "rejected"), _preference, ("input",), lists=("chosen", "rejected")),
    "text": Form(("text",), lambda fields, tags: Document(fields.text("text"), tags)),
    "transcript": Form(("chosen", "rejected"), _transcript, guessed=False),
    "tree": Form(
        ("prompt",), lambda fields, tags: _best_thread(fields.raw("prompt"), fields.record.where, tags), guessed=False
    ),
    "thread": Form(
        ("role", "text", "replies"),
        lambda fields, tags: _best_thread(dict(fields.record.values), fields.record.where, tags),
        guessed=False,
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
