"""Ask the starter 200 questions in phrasings it was never trained on, and count what is right.

    python -m tools.check_starter [PATH] [--out bench/starter.json]

Greedy decoding by our own engine. A right answer must also end by itself and, in a room, stay in its turn.
The questions and how they are judged are in tools/starter/questions.py.
"""

import argparse
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import ChatMessage, ChatModel, ReplyDone, ReplyFailed, SamplingParams, TextDelta, load_model
from model.options import path_option
from tools.starter.questions import Question, held_out_questions, stays_in_turn

MAX_NEW_TOKENS = 220  # longer than any story; a reply that reaches it did not end by itself
NEEDED = 0.85


@dataclass(frozen=True)
class Answered:
    """A question with the model's reply."""

    question: Question
    reply: str
    ended: bool

    @property
    def right(self) -> bool:
        return self.ended and self.question.right(self.reply)


def ask(llm: ChatModel, question: Question) -> Answered:
    """The model's greedy reply. Raises RuntimeError if the engine fails."""
    messages = [ChatMessage(role, content) for role, content in question.messages]
    reply = llm.start(messages, SamplingParams(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS))
    text, ended = "", False
    for event in reply.events():
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, ReplyDone):
            ended = event.finish_reason == "eos"
        elif isinstance(event, ReplyFailed):
            raise RuntimeError(f"the engine failed on {question.messages[-1]!r}: {event.message}")
    return Answered(question, text, ended)


def share(answered: Iterable[Answered]) -> dict[str, int]:
    asked = list(answered)
    return {"asked": len(asked), "right": sum(one.right for one in asked)}


def report(answered: list[Answered], seconds: float) -> dict[str, Any]:
    """The figures of bench/starter.json."""
    categories = Counter(one.question.category for one in answered)
    rooms = [one for one in answered if one.question.people]
    names = [
        one for one in answered if one.question.exchange.skill == "persona_name" and not one.question.people
    ]
    told = [
        one
        for one in answered
        if one.question.category == "memory" and one.question.exchange.skill == "recall_name"
    ]
    return {
        **share(answered),
        "share_right": round(sum(one.right for one in answered) / len(answered), 4),
        "ended_by_themselves": sum(one.ended for one in answered),
        "categories": {
            name: share(one for one in answered if one.question.category == name) for name in categories
        },
        "answers_as_the_bot_it_is_told_to_be": share(names),
        "keeps_to_its_turn_in_a_room_of_three": {
            "asked": len(rooms),
            "right": sum(one.ended and stays_in_turn(one.reply, one.question.people) for one in rooms),
        },
        "remembers_a_name_told_four_turns_earlier": share(told),
        "seconds": round(seconds, 1),
        "wrong": [
            {
                "category": one.question.category,
                "question": one.question.messages[-1][1][-160:],
                "expected": list(one.question.exchange.accept),
                "reply": one.reply,
                "ended": one.ended,
            }
            for one in answered
            if not one.right
        ],
    }


def machine() -> dict[str, Any]:
    import torch

    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "path",
        nargs="?",
        type=path_option,
        default=Path(__file__).parents[1] / "starter",
        help="model folder (default: starter/)",
    )
    parser.add_argument("--out", type=path_option, help="write the figures as JSON to this file")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as the engine chooses)")
    parser.add_argument("--exact", action="store_true", help="float32 activations instead of int8 ones")
    parser.add_argument("--show", action="store_true", help="print every question with its reply")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    llm = load_model(args.path, device="cpu", exact=args.exact, threads=args.threads)
    start = time.monotonic()
    answered = []
    for question in held_out_questions():
        answered.append(ask(llm, question))
        if args.show or not answered[-1].right:
            mark = "right" if answered[-1].right else "WRONG"
            print(
                f"{mark} [{question.category}] {question.messages[-1][1][-100:]!r} -> {answered[-1].reply!r}",
                flush=True,
            )
    figures = report(answered, time.monotonic() - start)
    figures = {
        "command": "python -m tools.check_starter",
        "machine": machine(),
        "model": llm.info(),
        **figures,
    }
    llm.close()
    print(
        json.dumps(
            {key: value for key, value in figures.items() if key not in ("wrong", "model", "machine")},
            indent=2,
            ensure_ascii=False,
        )
    )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    good = figures["share_right"] >= NEEDED and figures["ended_by_themselves"] == len(answered)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
