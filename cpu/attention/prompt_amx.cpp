// Causal attention of a prompt's tokens with AMX bf16 tiles over the paged cache.
//
// Everything is a product of bf16 tiles, and nearly as exact as float32: q, k, v and the weights are sums of two bf16
// numbers, high + low (of fp16 that is exact), of whose four products three count: an error of 1e-5 of the result.
//
// Transposed, so that a register holds one key's scores for 16 rows (token, query head): maximum, sum and rescaling need
// nothing across lanes.
//     scores^T [keys][rows]  = k [16 keys][32 dims]   * q^T [32 dims / 2][16 rows][2]
//     out^T    [dims][rows] += v^T [16 dims][32 keys] * p^T [32 keys / 2][16 rows][2]
// An item is some tiles of 32 rows of one key head. Its keys and values are rewritten as such tiles, a span of keys at a time that
// stays in the second-level cache, and all its tiles go over the span in blocks of kBlockKeys, counted from the first key: what a
// row gets depends on nothing but its query and the keys that it sees. (A value that is infinite or NaN reaches the
// earlier rows of its tile.)
//
// Bound by both units in turn, for 16 x 16 scores of head_dim 64: twelve products (192 cycles) and 16 exponentials (about 160).
#include "prompt.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "prompt_pages.h"
#include "prompt_tiles.h"
#include "thread_team.h"

namespace parlor {
namespace amx {
namespace {

constexpr int64_t kTileRows = 32;      // two tiles of the unit
constexpr int64_t kBlockKeys = 128;    // between two looks at the maximum
constexpr int64_t kSpanKeys = 256;     // that are rewritten at a time
constexpr int64_t kKeyRun = 32;        // keys that are rewritten together; pages are multiples of it
constexpr int64_t kTileStateBytes = 768 << 10;  // of queries and sums of an item's tiles: they stay in the second-level cache
constexpr int64_t kMaxItemTiles = 16;  // more save little of the rewriting, a twentieth of the work
constexpr int64_t kItemsPerThread = 4;
constexpr float kPerLn2 = 1.44269504088896341f;  // scores are kept times this, for powers of 2

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// 2^x, error 1.5e-7 and 1 at 0; zero below -126 and for -infinity.
__attribute__((always_inline)) inline Vec power_of_2(Vec x) {
    const __mmask16 counts = _mm512_cmp_ps_mask(x, set1(-126.0f), _CMP_GE_OQ);
    const Vec r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
    Vec p = set1(1.86713017e-3f);  // the smallest largest error on [0, 1) of those that are 1 at 0
    p = fma(p, r, set1(9.01702978e-3f));
    p = fma(p, r, set1(5.57999127e-2f));
    p = fma(p, r, set1(2.40164444e-1f));
    p = fma(p, r, set1(6.93151295e-1f));
    p = fma(p, r, set1(1.0f));
    return _mm512_maskz_scalef_ps(counts, p, x);  // times 2^floor(x)
}

// A head's sizes, and the memory of a thread.
struct Sizes {
    int64_t steps, dim_tiles;  // of 32 dimensions of a score; of 16 dimensions of the sums, an even number

    explicit Sizes(int64_t head_dim) : steps(round_up(head_dim, 32) / 32), dim_tiles(round_up(head_dim, 32) / 16) {}

    int64_t query_words() const { return 2 * steps * 2 * kWords; }               // [row tile][step][high, low]
    int64_t sum_floats() const { return dim_tiles * 2 * 256; }                    // [dim tile][row tile][16 dims][16 rows]
    int64_t span_words() const { return kSpanKeys / 16 * steps * 2 * kWords; }    // [16 keys][step][high, low]; as many of values:
                                                                                  // [32 keys][dim tile][high, low]
    int64_t tile_bytes() const { return query_words() * 2 + sum_floats() * 4 + 4 * 64; }
    int64_t max_tiles() const { return std::max<int64_t>(1, std::min(kMaxItemTiles, kTileStateBytes / tile_bytes())); }
    int64_t bytes() const {
        return max_tiles() * tile_bytes() + 2 * span_words() * 2 + kBlockKeys * kTileRows * 4 + kBlockKeys * kTileRows * 4;
    }
};

// Some row tiles of one key head of one sequence. Page: HalfPage or CodePage.
template <class Page>
class Item {
  public:
    Item(const AttentionArgs& a, int64_t sequence, char* memory)
        : a_(a), sizes_(a.head_dim), group_(a.num_heads / a.num_kv_heads), first_row_(a.cu_seqlens[sequence]),
          num_tokens_(a.cu_seqlens[sequence + 1] - first_row_), num_keys_(a.seq_lens[sequence]),
          pages_(a.block_table + sequence * a.block_table_stride) {
        const auto take = [&](int64_t bytes) {
            char* const start = memory;
            memory += bytes;
            return start;
        };
        scores_ = reinterpret_cast<float*>(take(kBlockKeys * kTileRows * 4));
        weights_ = reinterpret_cast<uint16_t*>(take(kBlockKeys * kTileRows * 4));
        keys_ = reinterpret_cast<uint16_t*>(take(sizes_.span_words() * 2));
        values_ = reinterpret_cast<uint16_t*>(take(sizes_.span_words() * 2));
        queries_ = reinterpret_cast<uint16_t*>(take(sizes_.max_tiles() * sizes_.query_words() * 2));
        sums_ = reinterpret_cast<float*>(take(sizes_.max_tiles() * sizes_.sum_floats() * 4));
        tops_ = reinterpret_cast<float*>(take(sizes_.max_tiles() * 4 * 64));
        // Dimensions that only fill up a tile are never rewritten.
        std::memset(keys_, 0, static_cast<size_t>(sizes_.span_words()) * 2);
        std::memset(values_, 0, static_cast<size_t>(sizes_.span_words()) * 2);
    }

    static int64_t num_tiles(int64_t num_tokens, int64_t group) { return (num_tokens * group + kTileRows - 1) / kTileRows; }

    // Tiles [first, last) of the rows (token, head of the group) of key head `head`; at most max_tiles().
    void run(int64_t head, int64_t first, int64_t last) {
        head_ = head;
        for (int64_t t = first; t < last; ++t) begin(t, t - first);
        const int64_t end = keys_of_tile(last - 1);
        for (int64_t start = first_key_of_tile(first) / kSpanKeys * kSpanKeys; start < end; start += kSpanKeys) {
            rewrite(start, std::min(start + kSpanKeys, end));
            for (int64_t t = first; t < last; ++t) {
                const int64_t keys = std::min(keys_of_tile(t), start + kSpanKeys);
                const int64_t first_block = std::max(start, first_key_of_tile(t) / kBlockKeys * kBlockKeys);
                for (int64_t block = first_block; block < keys; block += kBlockKeys)
                    attend(t, t - first, block - start, block, std::min(kBlockKeys, round_up(keys - block, kKeyRun)));
            }
        }
        for (int64_t t = first; t < last; ++t) finish(t, t - first);
    }

  private:
    int64_t num_rows() const { return num_tokens_ * group_; }
    int64_t keys_of_row(int64_t row) const { return num_keys_ - num_tokens_ + row / group_ + 1; }
    int64_t keys_of_tile(int64_t tile) const { return keys_of_row(std::min((tile + 1) * kTileRows, num_rows()) - 1); }
    int64_t first_key_of_row(int64_t row) const { return first_key(keys_of_row(row), a_.window); }
    int64_t first_key_of_tile(int64_t tile) const { return first_key_of_row(tile * kTileRows); }
    int64_t place_of_row(int64_t row) const { return (head_ * group_ + row % group_) * a_.head_dim; }

    // Keys [start, end) and values as tiles; what lies behind the sequence's end is unknown in keys and zero in values.
    void rewrite(int64_t start, int64_t end) {
        const int64_t bytes = Page::block_bytes(a_.page_size, a_.head_dim);
        for (int64_t first = start; first < end; first += kKeyRun) {
            const int64_t offset = first % a_.page_size;
            const int64_t block = pages_[first / a_.page_size] * a_.num_kv_heads + head_;
            const Page page(static_cast<const char*>(a_.k_cache) + block * bytes,
                            static_cast<const char*>(a_.v_cache ? a_.v_cache : a_.k_cache) + block * bytes, a_.page_size,
                            a_.head_dim);
            const int64_t run = (first - start) / kKeyRun;
            for (int64_t half = 0; half < 2; ++half)
                for (int64_t s = 0; s < sizes_.steps; ++s) {
                    const int64_t dims = a_.head_dim - s * 32;
                    split_and_transpose(
                        [&](int d) { return d < dims ? page.key(s * 32 + d, offset + half * 16) : zero(); },
                        keys_ + ((run * 2 + half) * sizes_.steps + s) * 2 * kWords);
                }
            const int64_t valid = num_keys_ - first;
            for (int64_t d = 0; d < a_.head_dim / 16; ++d) {
                uint16_t* const tiles = values_ + (run * sizes_.dim_tiles + d) * 2 * kWords;
                if (a_.v_cache) {
                    split_and_transpose([&](int j) { return j < valid ? page.value(offset + j, d * 16) : zero(); }, tiles);
                } else {
                    split_rows([&](int row, int half) { return page.key(d * 16 + row, offset + half * 16); }, valid, tiles);
                }
            }
        }
    }

    // Queries of a tile times scale / ln 2; the state of a tile that has seen nothing.
    void begin(int64_t tile, int64_t slot) {
        const Vec factor = set1(a_.scale * kPerLn2);
        for (int64_t t = 0; t < 2; ++t)
            for (int64_t s = 0; s < sizes_.steps; ++s) {
                __m512i high[16], low[16];
                for (int64_t i = 0; i < 16; ++i) {
                    const int64_t row = tile * kTileRows + t * 16 + i;
                    high[i] = low[i] = _mm512_setzero_si512();
                    if (row >= num_rows()) continue;
                    const float* const q = a_.q + (first_row_ + row / group_) * a_.q_stride + place_of_row(row) + s * 32;
                    const Vec first = load(q) * factor;
                    const Vec second = s * 32 + 16 < a_.head_dim ? load(q + 16) * factor : zero();
                    high[i] = (__m512i)_mm512_cvtne2ps_pbh(second, first);
                    const Vec first_high = widen(_mm512_castsi512_si256(high[i]));
                    const Vec second_high = widen(_mm512_extracti64x4_epi64(high[i], 1));
                    low[i] = (__m512i)_mm512_cvtne2ps_pbh(second - second_high, first - first_high);
                }
                uint16_t* const tiles = queries(slot) + (t * sizes_.steps + s) * 2 * kWords;
                transpose(high);
                store_tile(high, tiles);
                transpose(low);
                store_tile(low, tiles + kWords);
            }
        std::memset(sums(slot), 0, static_cast<size_t>(sizes_.sum_floats()) * 4);
        for (int64_t t = 0; t < 2; ++t) {
            store(tops(slot) + t * 16, set1(-1e30f));
            store(tops(slot) + (2 + t) * 16, zero());
        }
    }

    // A tile and `count` keys from `first` on, which lie at `place` of the span.
    void attend(int64_t tile, int64_t slot, int64_t place, int64_t first, int64_t count) {
        keep_memory_order();
        score(queries(slot), place, count);
        keep_memory_order();
        const int64_t last_row = std::min((tile + 1) * kTileRows, num_rows()) - 1;
        const bool is_masked = first + count > keys_of_row(tile * kTileRows) || first < first_key_of_row(last_row);
        for (int64_t t = 0; t < 2; ++t) {
            if (a_.softcap > 0) cap(scores_ + t * kBlockKeys * 16, count);
            Seen seen;
            for (int64_t i = 0; is_masked && i < 16; ++i) {
                const int64_t row = std::min(tile * kTileRows + t * 16 + i, last_row);
                seen.first[i] = static_cast<int32_t>(first_key_of_row(row) - first);
                seen.last[i] = static_cast<int32_t>(keys_of_row(row) - first);
            }
            float* const top = tops(slot) + t * 16;
            is_masked ? weigh<true>(t, count, seen, top, sums(slot)) : weigh<false>(t, count, seen, top, sums(slot));
        }
        keep_memory_order();
        add_values(sums(slot), place, count);
        keep_memory_order();
    }

    // Which keys of a block each of 16 rows sees; last is one behind.
    struct alignas(64) Seen {
        int32_t first[16], last[16];
    };

    // Scores, which are times 1 / ln 2, become softcap * tanh(score / softcap).
    void cap(float* scores, int64_t count) {
        const Vec cap = set1(a_.softcap * kPerLn2), twice = set1(2.0f / (a_.softcap * kPerLn2)), one = set1(1.0f);
        for (int64_t j = 0; j < count; ++j) {
            const Vec e = exp(load(scores + j * 16) * twice);  // tanh(x) = 1 - 2 / (exp(2 x) + 1)
            store(scores + j * 16, cap * (one - (one + one) / (e + one)));
        }
    }

    // scores_ [row tile][key][16 rows]
    void score(const uint16_t* q, int64_t place, int64_t count) {
        const uint16_t* const q0 = q;
        const uint16_t* const q1 = q + sizes_.steps * 2 * kWords;
        for (int64_t i = 0; i < count; i += 32) {
            const uint16_t* const k0 = keys_ + (place + i) / 16 * sizes_.steps * 2 * kWords;
            const uint16_t* const k1 = k0 + sizes_.steps * 2 * kWords;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int64_t s = 0; s < sizes_.steps * 2 * kWords; s += 2 * kWords) {
                _tile_stream_loadd(4, k0 + s, 64);
                _tile_stream_loadd(5, k1 + s, 64);
                _tile_loadd(6, q0 + s + kWords, 64);
                _tile_loadd(7, q1 + s + kWords, 64);
                multiply();  // high * low
                _tile_loadd(6, q0 + s, 64);
                _tile_loadd(7, q1 + s, 64);
                multiply();  // high * high
                _tile_stream_loadd(4, k0 + s + kWords, 64);
                _tile_stream_loadd(5, k1 + s + kWords, 64);
                multiply();  // low * high
            }
            _tile_stored(0, scores_ + i * 16, 64);
            _tile_stored(1, scores_ + (kBlockKeys + i) * 16, 64);
            _tile_stored(2, scores_ + (i + 16) * 16, 64);
            _tile_stored(3, scores_ + (kBlockKeys + i + 16) * 16, 64);
        }
    }

    __attribute__((always_inline)) static void multiply() {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }

    // scores of row tile t -> weights_ [row tile][32 keys][high, low][key pairs][16 rows][2]; sums are scaled to the new
    // maximum. top [2][2][16]: the maximum, and 32 floats further the sum of the weights.
    template <bool kIsMasked>
    void weigh(int64_t t, int64_t count, const Seen& seen, float* top, float* sums) {
        float* const scores = scores_ + t * kBlockKeys * 16;
        const __m512i first = kIsMasked ? _mm512_load_si512(seen.first) : _mm512_setzero_si512();
        const __m512i last = kIsMasked ? _mm512_load_si512(seen.last) : first;
        const Vec old_top = load(top);
        Vec tops[4] = {old_top, old_top, old_top, old_top};
        for (int64_t j = 0; j < count; j += 4) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                Vec score = load(scores + (j + i) * 16);
                if (kIsMasked) {
                    const __m512i key = _mm512_set1_epi32(static_cast<int>(j + i));
                    const __mmask16 hidden = _mm512_cmpgt_epi32_mask(first, key);
                    const __mmask16 sees = static_cast<__mmask16>(_mm512_cmpgt_epi32_mask(last, key) & ~hidden);
                    score = _mm512_mask_blend_ps(sees, set1(-INFINITY), score);
                    store(scores + (j + i) * 16, score);
                }
                tops[i] = max(tops[i], score);
            }
        }
        const Vec new_top = max(max(tops[0], tops[1]), max(tops[2], tops[3]));
        Vec all[2] = {load(top + 32), zero()};
        if (_mm512_cmp_ps_mask(new_top, old_top, _CMP_GT_OQ)) {
            const Vec factor = power_of_2(old_top - new_top);
            all[0] = all[0] * factor;
            for (int64_t d = 0; d < sizes_.dim_tiles * 16; ++d) {
                float* const sum = sums + ((d / 16 * 2 + t) * 16 + d % 16) * 16;
                store(sum, load(sum) * factor);
            }
            store(top, new_top);
        }
        const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
        uint16_t* to = weights_ + t * kBlockKeys * 16 * 2;
        for (int64_t j = 0; j < count; j += 32, to += 2 * kWords) {
#pragma GCC unroll 4
            for (int i = 0; i < 32; i += 2) {
                __m512i high[2], low[2];
#pragma GCC unroll 2
                for (int u = 0; u < 2; ++u) {
                    const Vec p = power_of_2(load(scores + (j + i + u) * 16) - new_top);
                    all[u] = all[u] + p;
                    high[u] = _mm512_add_epi32(_mm512_castps_si512(p), half);
                    low[u] = _mm512_castps_si512(p - _mm512_castsi512_ps(_mm512_and_si512(high[u], upper)));
                }
                _mm512_store_si512(to + i * 16, upper_words(high[0], high[1]));
                _mm512_store_si512(to + kWords + i * 16, upper_words(low[0], low[1]));
            }
        }
        store(top + 32, all[0] + all[1]);
    }

    void add_values(float* all_sums, int64_t place, int64_t count) {
        for (int64_t d = 0; d < sizes_.dim_tiles; d += 2) {
            float* const sums = all_sums + d * 2 * 256;
            _tile_loadd(0, sums, 64);
            _tile_loadd(1, sums + 256, 64);
            _tile_loadd(2, sums + 512, 64);
            _tile_loadd(3, sums + 768, 64);
            for (int64_t j = 0; j < count; j += 32) {
                const uint16_t* const p0 = weights_ + j / 32 * 2 * kWords;
                const uint16_t* const p1 = p0 + kBlockKeys * 16 * 2;
                const uint16_t* const v0 = values_ + ((place + j) / 32 * sizes_.dim_tiles + d) * 2 * kWords;
                const uint16_t* const v1 = v0 + 2 * kWords;
                _tile_stream_loadd(4, v0, 64);
                _tile_stream_loadd(5, v1, 64);
                _tile_loadd(6, p0 + kWords, 64);
                _tile_loadd(7, p1 + kWords, 64);
                multiply();  // high * low
                _tile_loadd(6, p0, 64);
                _tile_loadd(7, p1, 64);
                multiply();  // high * high
                _tile_stream_loadd(4, v0 + kWords, 64);
                _tile_stream_loadd(5, v1 + kWords, 64);
                multiply();  // low * high
            }
            _tile_stored(0, sums, 64);
            _tile_stored(1, sums + 256, 64);
            _tile_stored(2, sums + 512, 64);
            _tile_stored(3, sums + 768, 64);
        }
    }

    void finish(int64_t tile, int64_t slot) {
        for (int64_t t = 0; t < 2; ++t) {
            const int64_t first = tile * kTileRows + t * 16, rows = std::min<int64_t>(16, num_rows() - first);
            Vec weight = load(tops(slot) + (2 + t) * 16);
            if (a_.sinks) weight = weight + power_of_2(fma(sinks(first), set1(kPerLn2), zero() - load(tops(slot) + t * 16)));
            const Vec factor = set1(1.0f) / weight;
            for (int64_t d = 0; d < a_.head_dim / 16; ++d) {
                __m512i lanes[16];
                for (int i = 0; i < 16; ++i)
                    lanes[i] = _mm512_castps_si512(load(sums(slot) + ((d * 2 + t) * 16 + i) * 16) * factor);
                transpose(lanes);
                for (int64_t i = 0; i < rows; ++i) store(output(first + i) + d * 16, _mm512_castsi512_ps(lanes[i]));
            }
            for (int64_t i = 0; Page::kRotatesHeads && i < rows; ++i) hadamard(output(first + i), a_.head_dim);
        }
    }

    // Of the rows from `first` on: a score more for each, of a value of zero.
    Vec sinks(int64_t first) const {
        alignas(64) float scores[16];
        for (int64_t i = 0; i < 16; ++i) scores[i] = a_.sinks[head_ * group_ + (first + i) % group_];
        return load(scores);
    }

    float* output(int64_t row) const {
        return a_.out + (first_row_ + row / group_) * a_.num_heads * a_.head_dim + place_of_row(row);
    }
    uint16_t* queries(int64_t slot) const { return queries_ + slot * sizes_.query_words(); }
    float* sums(int64_t slot) const { return sums_ + slot * sizes_.sum_floats(); }
    float* tops(int64_t slot) const { return tops_ + slot * 64; }  // [maximum, weight][row tile][16]

    const AttentionArgs& a_;
    const Sizes sizes_;
    const int64_t group_, first_row_, num_tokens_, num_keys_;
    const int32_t* const pages_;
    int64_t head_ = 0;
    uint16_t *queries_, *weights_, *keys_, *values_;
    float *scores_, *sums_, *tops_;
};

template <class Page>
int attend_with(const AttentionArgs& a) {
    const Sizes sizes(a.head_dim);
    const int64_t group = a.num_heads / a.num_kv_heads, num_threads = team().size();
    const auto tiles_of = [&](int64_t s) {
        return Item<Page>::num_tiles(int64_t{a.cu_seqlens[s + 1]} - a.cu_seqlens[s], group);
    };
    int64_t all_tiles = 0;
    for (int64_t s = 0; s < a.num_sequences; ++s) all_tiles += a.num_kv_heads * tiles_of(s);
    const int64_t item_tiles =
        std::max<int64_t>(1, std::min(sizes.max_tiles(), all_tiles / (num_threads * kItemsPerThread)));
    const auto items_of_head = [&](int64_t s) { return (tiles_of(s) + item_tiles - 1) / item_tiles; };
    int64_t num_items = 0;
    for (int64_t s = 0; s < a.num_sequences; ++s) num_items += a.num_kv_heads * items_of_head(s);
    const int64_t bytes = round_up(sizes.bytes(), 4096);
    char* const memory = static_cast<char*>(team().scratch(static_cast<size_t>(bytes * num_threads)));
    if (!memory) return PARLOR_ERROR_MEMORY;
    team().parallel_for(num_items, [&](int64_t begin, int64_t end, int part) {
        configure_tiles();
        int64_t first_item = 0;  // of the sequence
        for (int64_t s = 0; s < a.num_sequences; ++s) {
            const int64_t per_head = items_of_head(s), items = a.num_kv_heads * per_head;
            const int64_t first = std::max<int64_t>(0, begin - first_item), last = std::min(items, end - first_item);
            first_item += items;
            if (first >= last) continue;
            Item<Page> item(a, s, memory + part * bytes);
            for (int64_t i = first; i < last; ++i) {
                const int64_t tile = i % per_head * item_tiles;
                item.run(i / per_head, tile, std::min(tile + item_tiles, tiles_of(s)));
            }
        }
        _tile_release();
    });
    return PARLOR_OK;
}

}  // namespace

bool takes_prompts(const AttentionArgs& a) {
    // A cache of float32 is for those who want its bits; pages are rewritten in runs, heads in tiles.
    return a.cache_dtype != PARLOR_F32 && a.page_size % kKeyRun == 0 && a.head_dim % 16 == 0;
}

int attend_to_prompts(const AttentionArgs& a) {
    switch (a.cache_dtype) {
        case PARLOR_F16: return attend_with<HalfPage>(a);
        case PARLOR_Q8: return attend_with<CodePage<8>>(a);
        default: return attend_with<CodePage<4>>(a);
    }
}

}  // namespace amx
}  // namespace parlor
