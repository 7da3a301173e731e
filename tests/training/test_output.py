"""What a task prints, line by line, and how much of it goes on."""

from __future__ import annotations

from fedbus.training.output import BURST_BYTES, BURST_LINES, LINES_PER_MINUTE, LONGEST_LINE, SAY_EVERY_S, Output


def test_lines_go_on_whole_however_they_come() -> None:
    output = Output(0.0)
    assert list(output.feed(b"one\ntw", 0.0)) == [b" one\n"]
    assert list(output.feed(b"o\r\nthree", 0.0)) == [b" two\n"]
    assert list(output.finish(0.0)) == [b" three\n"]


def test_a_progress_bar_is_lines_too() -> None:
    assert list(Output(0.0).feed(b"1%\r2%\r", 0.0)) == [b" 1%\n", b" 2%\n"]


def test_a_line_without_an_end_is_cut_and_takes_no_memory() -> None:
    output = Output(0.0)
    lines = [line for _ in range(1000) for line in output.feed(b"x" * 1000, 0.0)]
    lines += output.feed(b"\nnext\n", 0.0)
    assert [len(line) for line in lines] == [LONGEST_LINE + 2, 6]
    assert list(output.tick(1e9)) == []
    assert b"0 lines, 998000 bytes" in b"".join(output.finish(0.0))


def test_a_flood_is_counted_and_said_and_does_not_go_on() -> None:
    # given a task that prints without end
    output = Output(0.0)
    kept = [line for _ in range(10_000) for line in output.feed(b"flood\n" * 100, 0.0)]
    assert 1 <= len(kept) <= BURST_LINES + 100
    # then what was lost is said soon, once
    assert output.next_s == 1.0
    assert list(output.tick(0.5)) == []
    (said,) = output.tick(1.0)
    assert said.startswith(f"!{1_000_000 - len(kept)} lines, ".encode())
    assert list(output.tick(2.0)) == []
    # and after a minute a minute's lines go on
    kept = [line for _ in range(100) for line in output.feed(b"flood\n", 60.0)]
    assert len(kept) == LINES_PER_MINUTE
    (said,) = output.tick(1.0 + SAY_EVERY_S)
    assert said.startswith(f"!{100 - LINES_PER_MINUTE} lines, ".encode())


def test_long_lines_are_bounded_in_bytes() -> None:
    output = Output(0.0)
    kept = b"".join(line for _ in range(200) for line in output.feed(b"y" * 1999 + b"\n", 0.0))
    assert len(kept) <= BURST_BYTES + 200


def test_what_the_reader_did_not_take_is_counted() -> None:
    output = Output(0.0)
    (line,) = output.feed(b"hello\n", 0.0)
    output.lost(line, 0.0)
    assert b"1 lines, 7 bytes" in b"".join(output.finish(0.0))
