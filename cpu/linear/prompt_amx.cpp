// The linear layer for rows of prompts with AMX bf16 tiles. Both factors are rounded to 8 bits, scale and zero point in the
// weight, so that a product tile adds up over 512 columns and nothing is scaled afterwards: an error of 0.23% of a result,
// where 12 bits of x (amx.cpp) make 0.05 to 0.1%. Split factors are sums of two bf16, high + low, of whose four products
// three count: an error of 1e-5, for one and a half of int8's time in the tile unit, but of weights of every kind.
//
// Bound by the tile unit (16 cycles for 16 x 32 by 32 x 16) and by what moves between the caches:
//   first level    32 rows x 512 columns of x, 32 KiB (256 if split), for all row blocks of a panel; tiles of the weight are
//                  loaded past it (tileloaddt1; without the hint x is pushed out and everything takes a sixth longer)
//   second level   the panel, 16 row blocks x as many columns, twice: one is multiplied while the next is unpacked, a step
//                  between products; and the sums of the panel's outputs for all rows
//   third level    x, prefetched 32 rows ahead
// Tiles do not load sums: the load would wait for the stores of the block before, whose addresses are the same in the
// lower 12 bits. They are stored to a small ring, and vector instructions add them to the sums beside the next products.
// In the same order for each row, whatever the number of rows: see prompt.h. What gate and up give, silu included, goes from there
// to the staged rows of down at once: as floats it would take the third level twice as many bytes, three times.
#include "prompt.h"

#include <algorithm>

#include "norm.h"
#include "simd.h"
#include "tiles.h"
#include "unpack_bf16.h"
#include "unpack_groups.h"

namespace parlor {
namespace amx {
namespace {

constexpr int64_t kSliceColumns = 512;  // between two looks at the sums
constexpr int64_t kPanelBlocks = 16;   // row blocks
constexpr int64_t kUnit = kColumnUnit;  // columns of a tile
constexpr int64_t kTileFloats = 16 * kLanes;
constexpr int64_t kPanelWords = kPanelBlocks * kLanes * kSliceColumns;
constexpr int64_t kSumStride = kPanelBlocks * kTileFloats;  // floats of 16 rows of sums, [row tile][row block][16][16]
constexpr int64_t kRingFloats = 4 * kTileFloats;            // of one slot

// Bf16 numbers that a factor is the sum of, and columns of a slice: as many bytes either way.
constexpr int64_t parts_of(bool is_split) { return is_split ? 2 : 1; }
constexpr int64_t slice_of(bool is_split) { return kSliceColumns / parts_of(is_split); }

// Whether columns lie as in x, but for zeros behind the last.
bool has_whole_units(const linear_weight& w) { return is_grouped(w) || w.kind == PARLOR_LINEAR_F8; }

int64_t pairs_of(int64_t rows) { return (rows + kPromptPair - 1) / kPromptPair; }

inline __m512 silu(__m512 x) { return x / (set1(1.0f) + exp(zero() - x)); }

// Words of staged rows before column `column` of the first or the second row tile of a pair: see prompt_stage().
int64_t staged_place(int64_t padded_k, int64_t column, int64_t row_tile, bool is_split) {
    const int64_t slice = column / slice_of(is_split) * slice_of(is_split);
    const int64_t columns = std::min(slice_of(is_split), padded_k - slice);
    return (slice * kPromptPair + row_tile * columns * 16 + (column - slice) * 16) * parts_of(is_split);
}

// Products of 2 x 2 tiles in the ring, [row tile][output tile][16 rows][16 outputs], on their way to the sums or to out.
struct Drain {
    const float* from = nullptr;  // null: nothing
    const float* sums = nullptr;  // to be added, null: none yet; the second row tile is kSumStride further
    float* to = nullptr;
    int64_t to_row = 0, to_block = 0, stride = 0;  // floats to the second row tile, to the second row block, to the next row
    bool accumulates = false;     // to what is there
    const float* gate = nullptr;  // where these are outputs of up: the sums of gate, as `sums`; silu(gate) * up is what goes to out
    uint16_t* staged = nullptr;   // or there, a unit of the next weight's columns; to_row words to the second row tile
    const int8_t* order = nullptr;  // of its bytes, see PairOrder

    // Four rows of a tile.
    __attribute__((always_inline)) void rows(int tile, int64_t first) const {
        const float* const own = from + tile * kTileFloats + first * kLanes;
        const float* const add = sums + (tile >> 1) * kSumStride + (tile & 1) * kTileFloats + first * kLanes;
        float* const out = to + (tile >> 1) * to_row + (tile & 1) * to_block + first * stride;
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; ++i) {
            __m512 value = _mm512_load_ps(own + i * kLanes);
            if (sums) value = _mm512_add_ps(value, _mm512_load_ps(add + i * kLanes));
            if (accumulates) value = _mm512_add_ps(value, _mm512_loadu_ps(out + i * stride));
            _mm512_storeu_ps(out + i * stride, value);
        }
    }

    // Two rows of a row tile, both row blocks. Never inlined: the loops that call it are to keep their registers.
    __attribute__((noinline)) void activated_rows(int64_t row_tile, int64_t first) const {
        for (int64_t row = first; row < first + 2; ++row) {
            __m512 values[2];
#pragma GCC unroll 2
            for (int64_t block = 0; block < 2; ++block) {
                const int64_t sum = row_tile * kSumStride + block * kTileFloats + row * kLanes;
                __m512 up = _mm512_load_ps(from + (2 * row_tile + block) * kTileFloats + row * kLanes);
                if (sums) up = _mm512_add_ps(up, _mm512_load_ps(sums + sum));
                values[block] = _mm512_mul_ps(silu(_mm512_load_ps(gate + sum)), up);
            }
            if (staged) {
                const __m512i words = (__m512i)_mm512_cvtne2ps_pbh(values[1], values[0]);
                const __m512i bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(order)));
                _mm512_store_si512(staged + row_tile * to_row + row * kUnit, _mm512_shuffle_epi8(words, bytes));
            } else {
                float* const out = to + row_tile * to_row + row * stride;
                _mm512_storeu_ps(out, values[0]);
                _mm512_storeu_ps(out + to_block, values[1]);
            }
        }
    }

    // The work in sixteen parts.
    __attribute__((always_inline)) void step(int64_t part) const {
        if (gate) activated_rows(part / 8, part % 8 * 2);
        else rows(static_cast<int>(part / 4), part % 4 * 4);
    }

    void all() const {
        for (int64_t part = 0; from && part < 16; ++part) step(part);
    }
};

// 2 x 2 tiles of 32 columns.
template <bool kSplit>
__attribute__((always_inline)) inline void multiply_unit(const uint16_t* x0, const uint16_t* x1, const uint16_t* w0,
                                                         const uint16_t* w1) {
    const auto multiply = [] {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    };
    if (kSplit) {
        _tile_loadd(4, x0 + kTileWords, 64);
        _tile_stream_loadd(6, w0, 64);
        _tile_stream_loadd(7, w1, 64);
        _tile_loadd(5, x1 + kTileWords, 64);
        multiply();  // low * high
        _tile_loadd(4, x0, 64);
        _tile_loadd(5, x1, 64);
        multiply();  // high * high
        _tile_stream_loadd(6, w0 + kTileWords, 64);
        _tile_stream_loadd(7, w1 + kTileWords, 64);
        multiply();  // high * low
        return;
    }
    _tile_loadd(4, x0, 64);
    _tile_stream_loadd(6, w0, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, w1, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, x1, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

// What 2 x 2 tiles are multiplied: [units of columns][high, low where split][16 rows or pairs][64 bytes] each.
struct Factors {
    const uint16_t *x0, *x1, *w0, *w1;
    int64_t units;
};

// Sums over a slice to products[4][16][16]. Beside a whole slice's: the block before is drained, x is prefetched, codes are
// unpacked: two steps a unit with kPace -1, one in 2^kPace units else.
template <int kPace, class Codes>
void multiply(const Factors& f, float* products, const Drain& shared_drain, const char* ahead, Codes& shared) {
    constexpr int kPeriod = kPace > 1 ? 1 << (kPace > 1 ? kPace - 1 : 0) : 1;  // in pairs of units
    constexpr int64_t kUnitWords = kTileWords * parts_of(Codes::kIsSplit);
    constexpr int64_t kUnits = slice_of(Codes::kIsSplit) / kUnit;
    constexpr int64_t kDrains = 16 / kUnits, kAheadLines = 64 / kUnits;  // of a unit
    Codes codes = shared;  // copies may stay in registers
    const Drain drain = shared_drain;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (f.units == kUnits) {
        int64_t place = 0, drained = 0;
        for (int pair = 0; pair < kUnits / 2; ++pair) {
            const bool unpacks = codes.steps() > 0 && pair % kPeriod == 0;
            const typename Codes::Factors factors = unpacks ? codes.factors() : typename Codes::Factors{};
#pragma GCC unroll 2
            for (int64_t i = 0; i < 2; ++i, place += kUnitWords) {
                multiply_unit<Codes::kIsSplit>(f.x0 + place, f.x1 + place, f.w0 + place, f.w1 + place);
#pragma GCC unroll 2
                for (int64_t d = 0; d < kDrains; ++d, ++drained)
                    if (drain.gate) shared_drain.activated_rows(drained / 8, drained % 8 * 2);
                    else if (drain.from) drain.rows(static_cast<int>(drained / 4), drained % 4 * 4);
#pragma GCC unroll 8
                for (int64_t line = 0; line < kAheadLines; ++line) _mm_prefetch(ahead + place / 2 + line * 64, _MM_HINT_T1);
                if (unpacks && (kPace < 1 || i == 0)) codes.step(factors);
                if (unpacks && kPace < 0) codes.step(factors);
            }
            if (unpacks) codes.advance(kPace < 0 ? 4 : kPace == 0 ? 2 : 1);
        }
    } else {
        for (int64_t place = 0; place < f.units * kUnitWords; place += kUnitWords)
            multiply_unit<Codes::kIsSplit>(f.x0 + place, f.x1 + place, f.w0 + place, f.w1 + place);
        drain.all();
    }
    shared = codes;
    _tile_stored(0, products, 64);
    _tile_stored(1, products + kTileFloats, 64);
    _tile_stored(2, products + 2 * kTileFloats, 64);
    _tile_stored(3, products + 3 * kTileFloats, 64);
    keep_memory_order();
}

// The multiply() in which `steps` of unpacking are spread over `units` of products as evenly as may be.
template <class Codes>
auto paced_multiply(int64_t steps, int64_t units) {
    return steps > units       ? multiply<-1, Codes>
           : steps * 2 > units ? multiply<0, Codes>
           : steps * 4 > units ? multiply<1, Codes>
           : steps * 8 > units ? multiply<2, Codes>
                               : multiply<3, Codes>;
}

inline __mmask16 columns_of(int64_t n, int64_t row_block) {
    const int64_t left = n - row_block * kLanes;
    return left >= kLanes ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
}

// Sums of `count` row blocks of a panel -> out, with bias and epilogue, for the outputs that a drain could not write there.
// Of gate and up the sums of up lie behind those of gate.
void finish_blocks(const linear_weight& w, const float* sums, int64_t first_row, int64_t count, int64_t up_sums,
                   int64_t block, int64_t up_block, const PromptOutput& output) {
    const int64_t n = output.epilogue == PARLOR_EPILOGUE_SILU_MUL ? w.n / 2 : w.n;
    for (int64_t r = first_row; r < std::min(first_row + kPromptPair, output.rows); ++r) {
        const float* const own = sums + r / 16 * kSumStride + r % 16 * kLanes;
        for (int64_t i = 0; i < count; ++i) {
            const __mmask16 mask = columns_of(n, block + i);
            float* const out = output.out + r * output.stride + (block + i) * kLanes;
            __m512 value = _mm512_load_ps(own + i * kTileFloats);
            if (w.bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, w.bias + (block + i) * kLanes));
            if (output.epilogue == PARLOR_EPILOGUE_ADD) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), value);
            if (output.epilogue == PARLOR_EPILOGUE_GATE)
                value = _mm512_mul_ps(silu(_mm512_maskz_loadu_ps(mask, out)), value);
            if (output.epilogue == PARLOR_EPILOGUE_SILU_MUL) {
                __m512 up = _mm512_load_ps(own + (up_sums + i) * kTileFloats);
                if (w.bias) up = _mm512_add_ps(up, _mm512_maskz_loadu_ps(mask, w.bias + (up_block + i) * kLanes));
                value = _mm512_mul_ps(silu(value), up);
            }
            _mm512_mask_storeu_ps(out, mask, value);
        }
    }
}

// A unit's `filled` columns of a row from column `source` of the codes on: normalized, permuted, zeros behind them.
inline void load_unit(const linear_weight& w, const Input& input, const float* x, float factor, int64_t source,
                      int64_t filled, __m512* first, __m512* second) {
    const float* norm = input.norm ? input.norm + source : nullptr;
    const float* values = x + source;
    alignas(64) float gathered[kUnit] = {}, gathered_norm[kUnit] = {};
    if (filled < kUnit || w.perm) {
        for (int64_t i = 0; i < filled; ++i) {
            const int64_t column = w.perm ? w.perm[source + i] : source + i;
            gathered[i] = x[column];
            if (norm) gathered_norm[i] = input.norm[column];
        }
        values = gathered;
        if (norm) norm = gathered_norm;
    }
    *first = _mm512_loadu_ps(values);
    *second = _mm512_loadu_ps(values + kLanes);
    if (!norm) return;
    *first = _mm512_mul_ps(_mm512_mul_ps(*first, _mm512_set1_ps(factor)), _mm512_loadu_ps(norm));
    *second = _mm512_mul_ps(_mm512_mul_ps(*second, _mm512_set1_ps(factor)), _mm512_loadu_ps(norm + kLanes));
}

// The order of bytes that puts eight bf16 into kPairOrder, as the weight's columns come out of Unpacker.
struct PairOrder {
    alignas(16) int8_t bytes[16];

    explicit PairOrder(const linear_weight& w) {
        for (int i = 0; i < 16; ++i)
            bytes[i] = static_cast<int8_t>(2 * kPairOrder[w.kind == PARLOR_LINEAR_Q4 ? 0 : 1][i / 2] + i % 2);
    }
};

template <class Codes>
void multiply_blocks(const linear_weight& w, const void* staged, int64_t first, int64_t last, const PromptOutput& output,
                     void* own) {
    constexpr int64_t kSlice = slice_of(Codes::kIsSplit), kParts = parts_of(Codes::kIsSplit);
    const uint16_t* const x = static_cast<const uint16_t*>(staged);
    uint16_t* const panels[2] = {static_cast<uint16_t*>(own), static_cast<uint16_t*>(own) + kPanelWords};
    float* const ring = reinterpret_cast<float*>(panels[1] + kPanelWords);
    float* const sums = ring + 2 * kRingFloats;
    int32_t* const groups = reinterpret_cast<int32_t*>(sums + 2 * pairs_of(output.rows) * kSumStride);
    int64_t num_units = 0;
    for (int64_t b = 0; b < w.num_blocks && !has_whole_units(w); ++b)
        for (int64_t column = 0; column < blocks_of(w)[b].length; column += kUnit) groups[num_units++] = blocks_of(w)[b].group;

    const bool is_silu = output.epilogue == PARLOR_EPILOGUE_SILU_MUL;
    const bool adds = output.epilogue == PARLOR_EPILOGUE_ADD;
    const bool is_direct = !w.bias && output.epilogue != PARLOR_EPILOGUE_GATE;
    const PairOrder order(output.next ? *output.next : w);
    const int64_t run = prompt_row_blocks(output.epilogue), half = is_silu ? w.n / 2 / kLanes : -1;
    const int64_t pairs = pairs_of(output.rows);
    // The codes of out's row blocks from `block` on, columns from `column` on; behind the last column those of the next run.
    const auto codes_of = [&](int64_t block, int64_t column, uint16_t* panel) {
        if (column >= w.padded_k) column = 0, block += run;
        if (block >= last) return Codes();
        const int64_t columns = std::min(kSlice, w.padded_k - column);
        const int64_t place = column * Codes::kStepBytes / Codes::kStepColumns;
        const int64_t ahead = column + columns < w.padded_k ? columns * Codes::kStepBytes / Codes::kStepColumns
                                                            : run * row_block_bytes(w) - place;
        return Codes(w, groups, {block, is_silu ? half + block : -1, std::min(run, last - block), column, columns}, ahead,
                     panel);
    };
    Codes codes = codes_of(first, 0, panels[0]);
    unpack_all(codes);
    Drain drain;
    int side = 0, slot = 0;
    for (int64_t block = first; block < last; block += run) {
        const int64_t out_count = std::min(run, last - block), count = is_silu ? 2 * out_count : out_count;
        // Pairs of row blocks that the drains write to out: none where gate and up would share a pair.
        const int64_t whole = is_direct && (!is_silu || out_count % 2 == 0)
                                  ? std::min(out_count / 2, ((is_silu ? w.n / 2 : w.n) / kLanes - block) / 2) * 2 : 0;
        for (int64_t column = 0; column < w.padded_k; column += kSlice) {
            const int64_t units = std::min(kSlice, w.padded_k - column) / kUnit;
            const bool is_last = column + kSlice >= w.padded_k;
            codes = codes_of(block, column + kSlice, panels[1 - side]);
            const auto multiply_tiles = paced_multiply<Codes>(codes.steps(), pairs * ((count + 1) / 2) * units);
            keep_memory_order();
            for (int64_t p = 0; p < pairs; ++p) {
                const uint16_t* const x0 = x + (p * w.padded_k + column) * kPromptPair * kParts;
                // What comes next: the same columns of the next rows, or the first rows' next columns.
                const uint16_t* const next = p + 1 < pairs ? x0 + w.padded_k * kPromptPair * kParts
                                                           : x + (is_last ? 0 : (column + kSlice) * kPromptPair * kParts);
                for (int64_t i = 0; i < count; i += 2) {
                    const uint16_t* const w0 = panels[side] + i * units * kParts * kTileWords;
                    const uint16_t* const w1 = i + 1 < count ? w0 + units * kParts * kTileWords : w0;
                    float* const sum = sums + 2 * p * kSumStride + i * kTileFloats;
                    float* const products = ring + slot * kRingFloats;
                    multiply_tiles({x0, x0 + units * kParts * kTileWords, w0, w1, units}, products, drain,
                                   reinterpret_cast<const char*>(next) + i * 2048, codes);
                    drain = {products, column == 0 ? nullptr : sum, sum, kSumStride, kTileFloats, kLanes};
                    const int64_t out_block = is_silu ? i - out_count : i;
                    const bool is_whole = out_block >= 0 && out_block < whole;
                    if (is_last && is_whole && output.staged) {
                        const int64_t padded_k = output.next->padded_k, to = (block + out_block) * kLanes;
                        drain.gate = sum - out_count * kTileFloats;
                        drain.staged = static_cast<uint16_t*>(output.staged) + p * kPromptPair * padded_k +
                                       staged_place(padded_k, to, 0, false);
                        drain.to_row = staged_place(padded_k, to, 1, false) - staged_place(padded_k, to, 0, false);
                        drain.order = order.bytes;
                    } else if (is_last && is_whole && (p + 1) * kPromptPair <= output.rows) {
                        drain.gate = is_silu ? sum - out_count * kTileFloats : nullptr;
                        drain.to = output.out + p * kPromptPair * output.stride + (block + out_block) * kLanes;
                        drain.to_row = 16 * output.stride, drain.to_block = kLanes, drain.stride = output.stride;
                        drain.accumulates = adds;
                    }
                    slot = 1 - slot;
                }
            }
            unpack_all(codes);
            side = 1 - side;
        }
        drain.all();
        drain = {};
        for (int64_t row = 0; row < output.rows && !output.staged; row += kPromptPair) {
            const int64_t done = row + kPromptPair <= output.rows ? whole : 0;
            finish_blocks(w, sums + done * kTileFloats, row, out_count - done, out_count, block + done, half + block + done,
                          output);
        }
    }
}

template <bool kSplit>
auto multiply_of(int kind) {
    switch (kind) {
        case PARLOR_LINEAR_Q4: return multiply_blocks<Unpacker<4, kSplit>>;
        case PARLOR_LINEAR_G2: return multiply_blocks<GroupUnpacker<PARLOR_LINEAR_G2, kSplit>>;
        case PARLOR_LINEAR_G3: return multiply_blocks<GroupUnpacker<PARLOR_LINEAR_G3, kSplit>>;
        case PARLOR_LINEAR_G4: return multiply_blocks<GroupUnpacker<PARLOR_LINEAR_G4, kSplit>>;
        case PARLOR_LINEAR_G5: return multiply_blocks<GroupUnpacker<PARLOR_LINEAR_G5, kSplit>>;
        case PARLOR_LINEAR_G6: return multiply_blocks<GroupUnpacker<PARLOR_LINEAR_G6, kSplit>>;
        case PARLOR_LINEAR_T4: return multiply_blocks<GroupUnpacker<PARLOR_LINEAR_T4, kSplit>>;
        case PARLOR_LINEAR_W4: return multiply_blocks<GroupUnpacker<PARLOR_LINEAR_W4, kSplit>>;
        case PARLOR_LINEAR_F8: return multiply_blocks<Float8Unpacker<kSplit>>;
        default: return multiply_blocks<Unpacker<8, kSplit>>;
    }
}

}  // namespace

bool takes_prompts(const linear_weight& w, int epilogue) {
    // Exact weights ask for float32. Where up begins within a row block of gate's, both would have to be cut.
    const bool is_kind = is_quantized(w) || w.kind == PARLOR_LINEAR_F8;
    return is_kind && !w.exact && (epilogue != PARLOR_EPILOGUE_SILU_MUL || w.n % (2 * kLanes) == 0);
}

bool stages_prompts(const linear_weight& gate_up, const linear_weight& down) {
    // What drains write are whole units of columns, which must lie as in x.
    return takes_prompts(gate_up, PARLOR_EPILOGUE_SILU_MUL) && takes_prompts(down, PARLOR_EPILOGUE_ADD) && !gate_up.bias &&
           !down.perm && down.padded_k == down.k && gate_up.n == 2 * down.k;
}

bool splits_prompts(const linear_weight& w) {
    // 12 bits of x, 4 of the weight and long groups are a tenth faster: two products of int8 for six of bf16.
    return w.kind != PARLOR_LINEAR_Q4 || w.group_size < 64;
}

int64_t prompt_staged_bytes(const linear_weight& w, int64_t rows, bool is_split) {
    return pairs_of(rows) * kPromptPair * w.padded_k * parts_of(is_split) * 2;
}

int64_t prompt_own_bytes(const linear_weight& w, int64_t rows) {
    const int64_t groups = (w.padded_k / kUnit * 4 + 63) / 64 * 64;
    return 2 * kPanelWords * 2 + 2 * kRingFloats * 4 + pairs_of(rows) * 2 * kSumStride * 4 + groups;
}

int64_t prompt_row_blocks(int epilogue) {
    return epilogue == PARLOR_EPILOGUE_SILU_MUL ? kPanelBlocks / 2 : kPanelBlocks;
}

// [pairs of row tiles][slices][2][units of columns][high, low where split][16 rows][32 columns] bf16; rows that x lacks are
// zeros.
void prompt_stage(const linear_weight& w, const Input& input, int64_t pair, bool is_split, void* staged) {
    const PairOrder pair_order(w);
    const __m512i order = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pair_order.bytes)));
    const int64_t parts = parts_of(is_split);
    uint16_t* const tiles = static_cast<uint16_t*>(staged) + pair * kPromptPair * w.padded_k * parts;
    for (int64_t r = 0; r < kPromptPair; ++r) {
        const int64_t row = pair * kPromptPair + r;
        const bool exists = row < input.rows;
        const float* const x = input.x + (exists ? row : 0) * input.stride;
        const float factor = exists && input.norm ? norm_factor(input, w.k, x) : 1.0f;
        int64_t column = 0;
        const Block all{0, static_cast<int32_t>(w.k), static_cast<int32_t>(w.padded_k), 0};
        for (int64_t b = 0; b < (has_whole_units(w) ? 1 : w.num_blocks); ++b) {
            const Block& block = has_whole_units(w) ? all : blocks_of(w)[b];
            for (int64_t offset = 0; offset < block.length; offset += kUnit, column += kUnit) {
                uint16_t* const to = tiles + staged_place(w.padded_k, column, r / 16, is_split) + r % 16 * kUnit;
                __m512 lower = _mm512_setzero_ps(), upper = lower;
                const int64_t filled = std::min<int64_t>(kUnit, std::max<int64_t>(block.filled - offset, 0));
                if (exists) load_unit(w, input, x, factor, block.source + offset, filled, &lower, &upper);
                const __m512i words = (__m512i)_mm512_cvtne2ps_pbh(upper, lower);
                _mm512_store_si512(to, _mm512_shuffle_epi8(words, order));
                if (!is_split) continue;
                const __m512i rest = (__m512i)_mm512_cvtne2ps_pbh(
                    _mm512_sub_ps(upper, widen(_mm512_extracti64x4_epi64(words, 1))),
                    _mm512_sub_ps(lower, widen(_mm512_castsi512_si256(words))));
                _mm512_store_si512(to + kTileWords, _mm512_shuffle_epi8(rest, order));
            }
        }
    }
}

void prompt_multiply(const linear_weight& w, const void* staged, bool is_split, int64_t first, int64_t last,
                     const PromptOutput& output, void* own) {
    configure_tiles();
    (is_split ? multiply_of<true>(w.kind) : multiply_of<false>(w.kind))(w, staged, first, last, output, own);
    _tile_release();
}

}  // namespace amx
}  // namespace parlor
