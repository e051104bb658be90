"""Tables that commands print."""

from lm.base.console import format_table


def test_the_first_column_is_left_aligned_and_the_others_right_aligned():
    assert format_table([("name", "n"), ("a", "1.5"), ("long name", "22")]) == (
        "name         n\n"  #
        "a          1.5\n"
        "long name   22"
    )


def test_without_numbers_all_columns_are_left_aligned():
    assert format_table([("a", "was 1", "now 2"), ("key", "was", "now")], numbers=False) == (
        "a    was 1  now 2\n"  #
        "key  was    now"
    )


def test_characters_that_take_two_columns_of_a_terminal_are_aligned():
    assert format_table([("中文", "1"), ("four", "2")]) == "中文  1\nfour  2"
