"""model/engine/prefix_cache.py and page_pool.py: pages, chains of known content, windows, who goes first."""

from __future__ import annotations

import random

from model.engine.page_pool import BLANK, PagePool, Table
from model.engine.prefix_cache import ROOT, Match, PrefixCache
from model.sizes import PAGE_SIZE, pages_for

A = list(range(100, 100 + PAGE_SIZE))
B = list(range(200, 200 + PAGE_SIZE))
C = list(range(300, 300 + PAGE_SIZE))


def cache_of(num_pages: int) -> tuple[PrefixCache, PagePool]:
    """Of layers that see everything."""
    pool = PagePool(num_pages)
    return PrefixCache([pool]), pool


def fill(cache: PrefixCache, *blocks: list[int]) -> list[int]:
    """Pages of the first pool that hold these blocks one after the other, known and in use."""
    pages, chain = [], ROOT
    for block in blocks:
        own = [pool.allocate() for pool in cache.pools]
        chain = cache.know(own, chain, tuple(block))
        pages.append(own[0])
    return pages


def usable(cache: PrefixCache, token_ids: list[int], limit: int | None = None) -> Match:
    match = cache.match(token_ids, len(token_ids) if limit is None else limit)
    return cache.longest(match, match.ends())


def pages_of(match: Match) -> list[int]:
    return [entry.pages[0] for entry in match.entries]


def test_pages_for_counts_the_last_part():
    assert [pages_for(n) for n in (0, 1, 32, 33)] == [0, 1, 1, 2]


def test_a_known_beginning_is_found_while_in_use_and_after():
    cache, pool = cache_of(4)
    pages = fill(cache, A, B)
    assert pages_of(usable(cache, A + B + C)) == pages
    pool.release(pages)
    assert cache.num_used == 0
    assert pages_of(usable(cache, A + B + C)) == pages
    assert pages_of(usable(cache, A + C)) == pages[:1]


def test_the_limit_leaves_the_rest_to_be_computed():
    cache, _ = cache_of(4)
    pages = fill(cache, A, B)
    match = usable(cache, A + B, 63)
    assert pages_of(match) == pages[:1]
    assert (match.partial.pages, match.partial_tokens) == (pages[1:], 31)


def test_a_page_of_which_the_beginning_fits_is_offered_for_copying():
    cache, _ = cache_of(4)
    pages = fill(cache, A, B)
    changed = [*B[:10], 7, *B[11:]]
    match = usable(cache, A + changed + C)
    assert (pages_of(match), match.partial.pages, match.partial_tokens) == (pages[:1], pages[1:], 10)
    assert usable(cache, [1, 2, 3]).partial is None


def test_the_same_tokens_after_another_beginning_are_other_content():
    cache, _ = cache_of(8)
    fill(cache, A, C)
    other = fill(cache, B)
    match = usable(cache, B + C)
    assert pages_of(match) == other
    assert match.partial_tokens == 0


def test_equal_hashes_of_different_tokens_are_not_confused():
    class Collides(int):
        def __hash__(self) -> int:
            return 1

    cache, _ = cache_of(4)
    fill(cache, [Collides(i) for i in range(32)])
    assert usable(cache, [Collides(i + 1) for i in range(32)]).num_tokens == 0


def test_content_known_twice_keeps_the_first_page():
    cache, pool = cache_of(4)
    first, second = fill(cache, A), fill(cache, A)
    assert pages_of(usable(cache, A)) == first
    pool.release(second)
    assert pages_of(usable(cache, A)) == first
    pool.release(first)
    assert pool.num_available == 4


def test_a_shared_page_is_free_when_the_last_one_lets_go():
    cache, pool = cache_of(2)
    pages = fill(cache, A)
    pool.take(pages)
    pool.release(pages)
    assert cache.num_used == 1
    pool.release(pages)
    assert cache.num_used == 0


def test_the_least_recently_used_go_first_and_ends_before_beginnings():
    cache, pool = cache_of(4)
    old, new = fill(cache, A, B), fill(cache, C)
    pool.release(old)
    pool.release(new)
    pool.take(old)       # used again, so that C is the oldest
    pool.release(old)
    assert pool.allocate() not in old + new, "a free page comes first"
    assert pool.allocate() == new[0]
    assert pool.allocate() == old[1], "the end of the chain before its beginning"
    assert pages_of(usable(cache, A + B)) == old[:1]
    assert pool.allocate() == old[0]
    assert pool.allocate() is None
    assert not cache._children and not cache._by_chain and not cache._by_page[0], "nothing is left of it"


def test_what_lies_behind_a_page_that_has_gone_is_found_when_that_is_known_again():
    """Chains stay the same as long as something lies behind them."""
    cache, pool = cache_of(3)
    first, second = fill(cache, A, B)
    pool.release([first])
    pool.release([pool.allocate()])  # the free one
    assert [pool.allocate(), pool.allocate()][1] == first
    assert usable(cache, A + B).num_tokens == 0
    pool.release([first])
    again = fill(cache, A)
    assert pages_of(usable(cache, A + B)) == [*again, second]


def test_random_use_never_loses_or_doubles_a_page():
    rng = random.Random(3)
    cache, pool = cache_of(24)
    held: list[list[int]] = []
    for _ in range(3000):
        if rng.random() < 0.55:
            tokens = [rng.randrange(2) for _ in range(PAGE_SIZE // 16)] * 16 * rng.randrange(1, 4)
            match = usable(cache, tokens)
            pages, chain = pages_of(match), match.chains[-1]
            pool.take(pages)
            while len(pages) * PAGE_SIZE < len(tokens) and (page := pool.allocate()) is not None:
                first = len(pages) * PAGE_SIZE
                pages.append(page)
                chain = cache.know([page], chain, tuple(tokens[first:first + PAGE_SIZE]))
            held.append(pages)
        elif held:
            pool.release(held.pop(rng.randrange(len(held))))
        in_use = {page for pages in held for page in pages}
        assert pool.num_used == len(in_use)
    for pages in held:
        pool.release(pages)
    assert pool.num_available == 24
    assert sorted(pool.allocate() for _ in range(24)) == list(range(24))


# ---- windows -------------------------------------------------------------------------------------------


def test_a_window_holds_its_tokens_and_one_page_by_hand():
    """Of 40 tokens: a token at position 80 sees those from 41 on, which lie in the second page."""
    pool = PagePool(8, reach=40)
    assert pool.num_pages == 7, "one is blank"
    assert [pool.first_seen(position) for position in (0, 39, 70, 71, 80, 103)] == [0, 0, 0, 1, 1, 2]
    assert [pool.most_held(num_tokens) for num_tokens in (1, 64, 96, 97, 1000)] == [1, 2, 3, 3, 3]
    table = Table()
    assert pool.extend(table, 81) and pool.num_used == 3
    pool.release_behind(table, 80)
    assert table.pages[0] == BLANK and BLANK not in table.held and pool.num_used == len(table.held) == 2


def test_what_fell_behind_a_window_stays_known_and_is_used_again_while_it_is_there():
    """Layers of a window of 40 tokens beside others: behind 96 tokens those from 57 on are needed."""
    everything, window = PagePool(8), PagePool(4, reach=40)
    cache, tables = PrefixCache([everything, window]), [Table(), Table()]
    assert cache.extend(tables, 96) == 96
    chain = ROOT
    for index, block in enumerate((A, B, C)):
        chain = cache.know([table.pages[index] for table in tables], chain, tuple(block))
    first_of_window = tables[1].pages[0]
    window.release_behind(tables[1], 96)
    assert (everything.num_used, window.num_used) == (3, 2)
    for tokens in (A, A + B, A + B + C):
        assert usable(cache, tokens).num_tokens == len(tokens), "nothing has gone yet"
    assert usable(cache, A + B + C[:5]).num_tokens == 69, "its window begins in the first page"
    assert window.allocate() == first_of_window
    assert [usable(cache, tokens).num_tokens for tokens in (A, A + B, A + B + C[:5])] == [0, 0, 0]
    match = usable(cache, A + B + C)
    assert match.num_tokens == 96
    begun = cache.begin(match)
    assert begun[1].pages[0] == BLANK and begun[1].first == 1 and len(begun[1].held) == 2
    cache.release(begun)
    cache.release(tables)
    assert (everything.num_used, window.num_used) == (0, 1)


def test_of_what_fell_behind_the_windows_of_marks_go_last():
    """A window of 32 tokens at the mark 64 lies in the second page."""
    pool = PagePool(8, reach=32)
    cache, tables = PrefixCache([pool]), [Table()]
    cache.extend(tables, 160)
    chain = ROOT
    for index in range(5):
        chain = cache.know([tables[0].pages[index]], chain, tuple(range(index * 32, index * 32 + 32)))
    pages = list(tables[0].pages)
    pool.release_behind(tables[0], 160, marks=(64,))
    assert [pool.allocate() for _ in range(2)] == [6, 7]
    assert [pool.allocate() for _ in range(4)][-1] == pages[1]
    assert usable(cache, list(range(160))).num_tokens == 160, "a path to it is all that is needed"
