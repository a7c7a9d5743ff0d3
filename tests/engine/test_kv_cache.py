"""model/engine/kv_cache.py: pages, chains of known content, and who goes first."""

from __future__ import annotations

import random

from model.engine.kv_cache import ROOT, PagePool
from model.sizes import PAGE_SIZE, pages_for

A = list(range(100, 100 + PAGE_SIZE))
B = list(range(200, 200 + PAGE_SIZE))
C = list(range(300, 300 + PAGE_SIZE))


def fill(pool: PagePool, *blocks: list[int]) -> list[int]:
    """Pages that hold these blocks one after the other, known and in use."""
    pages, chain = [], ROOT
    for block in blocks:
        page = pool.allocate()
        assert page is not None
        chain = pool.know(page, chain, tuple(block))
        pages.append(page)
    return pages


def test_pages_for_counts_the_last_part():
    assert [pages_for(n) for n in (0, 1, 32, 33)] == [0, 1, 1, 2]


def test_a_known_beginning_is_found_while_in_use_and_after():
    pool = PagePool(4)
    pages = fill(pool, A, B)
    assert pool.match(A + B + C, 96).pages == pages
    pool.release(pages)
    assert pool.num_used == 0
    assert pool.match(A + B + C, 96).pages == pages
    assert pool.match(A + C, 64).pages == pages[:1]


def test_the_limit_leaves_the_rest_to_be_computed():
    pool = PagePool(4)
    pages = fill(pool, A, B)
    match = pool.match(A + B, 63)
    assert match.pages == pages[:1]
    assert (match.partial_page, match.partial_tokens) == (pages[1], 31)


def test_a_page_of_which_the_beginning_fits_is_offered_for_copying():
    pool = PagePool(4)
    pages = fill(pool, A, B)
    changed = [*B[:10], 7, *B[11:]]
    match = pool.match(A + changed + C, 96)
    assert (match.pages, match.partial_page, match.partial_tokens) == (pages[:1], pages[1], 10)
    assert pool.match([1, 2, 3], 3).partial_page == -1


def test_the_same_tokens_after_another_beginning_are_other_content():
    pool = PagePool(8)
    fill(pool, A, C)
    other = fill(pool, B)
    match = pool.match(B + C, 64)
    assert match.pages == other
    assert match.partial_tokens == 0


def test_equal_hashes_of_different_tokens_are_not_confused():
    class Collides(int):
        def __hash__(self) -> int:
            return 1

    pool = PagePool(4)
    fill(pool, [Collides(i) for i in range(32)])
    assert pool.match([Collides(i + 1) for i in range(32)], 32).pages == []


def test_content_known_twice_keeps_the_first_page():
    pool = PagePool(4)
    first, second = fill(pool, A), fill(pool, A)
    assert pool.match(A, 32).pages == first
    pool.release(second)
    assert pool.match(A, 32).pages == first
    pool.release(first)
    assert pool.num_available == 4


def test_a_shared_page_is_free_when_the_last_one_lets_go():
    pool = PagePool(2)
    pages = fill(pool, A)
    pool.take(pages)
    pool.release(pages)
    assert pool.num_used == 1
    pool.release(pages)
    assert pool.num_used == 0


def test_the_least_recently_used_go_first_and_ends_before_beginnings():
    pool = PagePool(4)
    old, new = fill(pool, A, B), fill(pool, C)
    pool.release(old)
    pool.release(new)
    pool.take(old)       # used again, so that C is the oldest
    pool.release(old)
    assert pool.allocate() not in old + new, "a free page comes first"
    assert pool.allocate() == new[0]
    assert pool.allocate() == old[1], "the end of the chain before its beginning"
    assert pool.match(A + B, 64).pages == old[:1]
    assert pool.allocate() == old[0]
    assert pool.allocate() is None


def test_random_use_never_loses_or_doubles_a_page():
    rng = random.Random(3)
    pool = PagePool(24)
    held: list[list[int]] = []
    for _ in range(3000):
        if rng.random() < 0.55:
            tokens = [rng.randrange(2) for _ in range(PAGE_SIZE // 16)] * 16 * rng.randrange(1, 4)
            match = pool.match(tokens, len(tokens))
            pool.take(match.pages)
            pages, chain = list(match.pages), match.chain
            while len(pages) * PAGE_SIZE < len(tokens) and (page := pool.allocate()) is not None:
                first = len(pages) * PAGE_SIZE
                pages.append(page)
                chain = pool.know(page, chain, tuple(tokens[first:first + PAGE_SIZE]))
            held.append(pages)
        elif held:
            pool.release(held.pop(rng.randrange(len(held))))
        in_use = {page for pages in held for page in pages}
        assert pool.num_used == len(in_use)
    for pages in held:
        pool.release(pages)
    assert pool.num_available == 24
    assert sorted(pool.allocate() for _ in range(24)) == list(range(24))
