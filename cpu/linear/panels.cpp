// Rounded weights for many rows, with AVX2, AVX-VNNI and AVX-512: one source, in registers of 8 or 16 outputs.
//
// Bound by the multiplier: two vpdpwssd a cycle at most, on AVX2 two vpmaddwd, each with a vpaddd. So a section of the weight
// (256 columns of two row blocks) is unpacked once for all rows into panels of 8 KiB, codes as int16, their whole zero points
// taken off; tiles of up to six rows go over it with sums in 12 registers: two loads of the panels and six of x for 12
// products. (vpdpbusd takes bytes, twice as many of them, but activations of 12 bits are two of those.)
#include "groups.h"
#include "panel_memory.h"
#include "registers.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int kTileRows = 6;
constexpr int64_t kPanelRowBlocks = 2;
constexpr int64_t kTileFloats = kTileRows * kLanes;
constexpr int kMaxBlocks = kSpanColumns / 16;  // of a span
constexpr int kHalves = kLanes / kRegisterLanes;

// A section of one row block.
struct alignas(64) Panel {
    int16_t codes[kSpanColumns * kLanes];  // [columns / 2][16 outputs][2], in the order of kPairOrder
    float scales[kMaxBlocks][kLanes];
    float mins[kMaxBlocks][kLanes];  // minimums, or zero points that are not in the codes
    float steps[kLanes], min_steps[kLanes];
};

// Of two registers that are worked off together, how far the second lies behind the first: it has the other half of the row
// block, or the same place of the next.
constexpr bool kHasHalves = kHalves == 2;
constexpr int64_t kSecondCode = kHasHalves ? 2 * kRegisterLanes : sizeof(Panel) / sizeof(int16_t);
constexpr int64_t kSecondFloat = kHasHalves ? kRegisterLanes : sizeof(Panel) / sizeof(float);
constexpr int64_t kSecondSum = kHasHalves ? kRegisterLanes : kTileFloats;
constexpr int64_t kTogether = kHasHalves ? 1 : kPanelRowBlocks;  // row blocks

using Memory = PanelMemory<Panel, kTileRows, kPanelRowBlocks>;

// ---- unpacking --------------------------------------------------------------------------------------------------

// Factors of 16 outputs, kept as PARLOR_SCALE_* say; those of steps have a sign or not.
void widen(int kind, bool is_signed, const void* source, float* target) {
    const uint8_t* const bytes = static_cast<const uint8_t*>(source);
    alignas(64) uint32_t words[kLanes];
    alignas(64) uint16_t halves[kLanes];
    const uint16_t* half_floats = static_cast<const uint16_t*>(source);
    switch (kind) {
        case PARLOR_SCALE_STEPS:
            for (int64_t i = 0; i < kLanes; ++i)
                target[i] = static_cast<float>(is_signed ? int32_t{static_cast<int8_t>(bytes[i])} : int32_t{bytes[i]});
            return;
        case PARLOR_SCALE_E8M0:
            for (int64_t i = 0; i < kLanes; ++i) words[i] = static_cast<uint32_t>(bytes[i]) << 23;
            __builtin_memcpy(target, words, sizeof words);
            return;
        case PARLOR_SCALE_E4M3:
            for (int64_t i = 0; i < kLanes; ++i) halves[i] = e4m3_as_half(bytes[i]);
            half_floats = halves;
            break;
        default: break;
    }
    for (int64_t i = 0; i < kLanes; i += kRegisterLanes) store_register(target + i, halves_to_floats(half_floats + i));
}

// Whole zero points can be taken from the codes before they are multiplied: the same integers as afterwards. (Of 8-bit
// codes only one for all: linear.h has the others subtracted as floats.)
inline bool zeros_in_codes(const linear_weight& w) {
    return w.zero_kind == PARLOR_ZERO_ONE || (w.zero_kind == PARLOR_ZERO_U8 && w.kind == PARLOR_LINEAR_Q4);
}

// The zero points of 16 outputs, twice each, as the panel has the codes.
void code_zeros(const linear_weight& w, int64_t index, int16_t* zeros) {
    const uint8_t* const bytes = static_cast<const uint8_t*>(w.zeros) + index;
    for (int64_t i = 0; i < 2 * kLanes; ++i)
        zeros[i] = static_cast<int16_t>(!zeros_in_codes(w) ? 0 : w.zero_kind == PARLOR_ZERO_ONE ? w.zero : bytes[i / 2]);
}

void float_zeros(const linear_weight& w, int64_t index, float* zeros) {
    if (w.zero_kind == PARLOR_ZERO_F16)
        return widen(PARLOR_SCALE_F16, false, static_cast<const uint16_t*>(w.zeros) + index, zeros);
    for (int64_t i = 0; i < kLanes; ++i) zeros[i] = static_cast<float>(static_cast<const uint8_t*>(w.zeros)[index + i]);
}

// Codes of a line, or half of one, as pairs of int16 in the order of kPairOrder.
template <int kBits>
inline Ints pairs_of(Ints line, int index) {
    if (kBits == 8) return index == 0 ? both(line, all_words(0x00FF00FF)) : upper_bytes(line);
    return both(shifted(line, -4 * index), all_words(0x000F000F));
}

template <int kBits>
void unpack_block(const uint8_t* codes, int columns, int64_t ahead, const int16_t* zeros, int16_t* target) {
    constexpr int kLineColumns = 32 / kBits;
    for (int column = 0; column < columns; column += kLineColumns, codes += 64, target += kLineColumns * kLanes) {
        _mm_prefetch(reinterpret_cast<const char*>(codes) + ahead, _MM_HINT_T1);
#pragma GCC unroll 2
        for (int half = 0; half < kHalves; ++half) {
            const int place = half * 2 * kRegisterLanes;
            const Ints line = load_register(static_cast<const void*>(codes + 2 * place));
            const Ints zero = load_register(static_cast<const void*>(zeros + place));
#pragma GCC unroll 4
            for (int pair = 0; pair < kLineColumns / 2; ++pair)
                store_register(static_cast<void*>(target + pair * 2 * kLanes + place), minus(pairs_of<kBits>(line, pair), zero));
        }
    }
}

void unpack_span(const linear_weight& w, const Span& span, int64_t row_block, Panel* panel) {
    const Block* const blocks = blocks_of(w);
    const bool is_q4 = w.kind == PARLOR_LINEAR_Q4;
    const int64_t column_bytes = is_q4 ? kLanes / 2 : kLanes;
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w) +
                           span.first_column * column_bytes;
    int16_t* target = panel->codes;
    for (int b = span.first_block; b < span.last_block; ++b) {
        const int64_t index = (row_block * w.num_groups + blocks[b].group) * kLanes;
        const int i = b - span.first_block;
        alignas(64) int16_t zeros[2 * kLanes];
        code_zeros(w, index, zeros);
        if (!zeros_in_codes(w)) float_zeros(w, index, panel->mins[i]);
        widen(PARLOR_SCALE_F16, false, w.scales + index, panel->scales[i]);
        (is_q4 ? unpack_block<4> : unpack_block<8>)(codes, blocks[b].length, span.columns * column_bytes, zeros, target);
        codes += blocks[b].length * column_bytes;
        target += blocks[b].length * kLanes;
    }
}

// Codes of columns 4 q .. 4 q + 3, a byte each; `unit` points at the first line or its second half.
template <int kKind>
inline Ints quad(const uint8_t* unit, int q) {
    const auto line = [&](int i) { return load_register(static_cast<const void*>(unit + i * 64)); };
    const auto bits = [](int mask) { return all_words(0x01010101 * mask); };
    Ints code = all_words(0);
    if (has_nibbles(kKind)) {
        code = both(shifted(line(q / 2), q % 2 ? -4 : 0), bits(15));
        unit += 4 * 64;
    }
    if (has_pairs(kKind)) {
        const int to = kKind == PARLOR_LINEAR_G6 ? 4 : 0;
        code = either(code, both(shifted(line(q / 4), to - q % 4 * 2), bits(3 << to)));
        unit += 2 * 64;
    }
    if (has_bits(kKind)) {
        const int to = kKind == PARLOR_LINEAR_G5 ? 4 : 2;
        code = either(code, both(shifted(line(0), to - q), bits(1 << to)));
    }
    return code;
}

// 32 columns.
template <int kKind>
void unpack_unit(const linear_weight& w, const uint8_t* unit, int16_t* target) {
    alignas(16) uint8_t lower[16], upper[16];
    for (int i = 0; i < 16; ++i) lower[i] = static_cast<uint8_t>(w.table[i]), upper[i] = static_cast<uint8_t>(w.table[i] >> 8);
    const Ints table = repeated(lower), upper_table = repeated(upper);
    const int zero = w.zero_kind == PARLOR_ZERO_ONE ? w.zero : 0;
    const Ints zeros = all_words(static_cast<int32_t>((zero & 0xFFFF) * 0x10001u));
#pragma GCC unroll 2
    for (int half = 0; half < kHalves; ++half) {
#pragma GCC unroll 8
        for (int q = 0; q < 8; ++q) {
            const Ints code = quad<kKind>(unit + half * 4 * kRegisterLanes, q);
            const Ints value = has_table(kKind) ? looked_up(table, code) : code;
            Ints even = both(value, all_words(0x00FF00FF)), odd = upper_bytes(value);
            if (kKind == PARLOR_LINEAR_W4) {
                const Ints more = looked_up(upper_table, code);
                even = either(even, lower_to_upper_bytes(more));
                odd = either(odd, both(more, all_words(static_cast<int32_t>(0xFF00FF00))));
            }
            int16_t* const pairs = target + q * 4 * kLanes + half * 2 * kRegisterLanes;
            store_register(static_cast<void*>(pairs), minus(even, zeros));
            store_register(static_cast<void*>(pairs + 2 * kLanes), minus(odd, zeros));
        }
    }
}

template <int kKind>
void unpack_units(const linear_weight& w, const Span& span, const uint8_t* codes, Panel* panel) {
    constexpr int64_t kUnitBytes = unit_lines(kKind) * 64;
    const int64_t units = span.columns / kGroupUnit;
    codes += span.first_column / kGroupUnit * kUnitBytes;
    for (int64_t u = 0; u < units; ++u, codes += kUnitBytes) {
        for (int line = 0; line < unit_lines(kKind); ++line)
            _mm_prefetch(reinterpret_cast<const char*>(codes) + units * kUnitBytes + line * 64, _MM_HINT_T1);
        unpack_unit<kKind>(w, codes, panel->codes + u * kGroupUnit * kLanes);
    }
}

void unpack_groups(const linear_weight& w, int64_t index, int64_t row_block, Panel* panel) {
    const Span& span = spans_of(w)[index];
    const GroupStream stream = group_stream(w, row_block);
    const int64_t bytes = w.scale_kind == PARLOR_SCALE_F16 ? 2 : 1;
    for (int b = span.first_block; b < span.last_block; ++b) {
        const int64_t place = blocks_of(w)[b].group * kLanes * bytes;
        const int i = b - span.first_block;
        widen(w.scale_kind, true, static_cast<const uint8_t*>(stream.scales) + place, panel->scales[i]);
        if (stream.mins) widen(w.scale_kind, false, static_cast<const uint8_t*>(stream.mins) + place, panel->mins[i]);
    }
    if (has_steps(w)) {
        widen(PARLOR_SCALE_F16, false, stream.steps + index * kLanes, panel->steps);
        if (stream.mins) widen(PARLOR_SCALE_F16, false, stream.min_steps + index * kLanes, panel->min_steps);
    }
    static constexpr decltype(&unpack_units<PARLOR_LINEAR_G2>) kUnpack[] = {
        unpack_units<PARLOR_LINEAR_G2>, unpack_units<PARLOR_LINEAR_G3>, unpack_units<PARLOR_LINEAR_G4>,
        unpack_units<PARLOR_LINEAR_G5>, unpack_units<PARLOR_LINEAR_G6>, unpack_units<PARLOR_LINEAR_T4>,
        unpack_units<PARLOR_LINEAR_W4>};
    kUnpack[w.kind - PARLOR_LINEAR_G2](w, span, stream.codes, panel);
}

// ---- multiplying ------------------------------------------------------------------------------------------------

// What is subtracted of a product: nothing any more, zero points as floats, or minimums.
enum class Less { kNothing, kZeros, kMins };

// A span of a tile. x, offsets and scales are those of the tile from the span on.
struct SpanRows {
    const Block* blocks;
    int num_blocks;
    const int16_t* x;
    const float* offsets;
    const float* scales;
};

// Add a span's share to the sums of a tile, of two registers side by side.
template <int kRows, Less kLess>
void add_span(const Panel& panel, bool has_steps, const SpanRows& rows, float* sums) {
    Floats parts[2][kRows];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) parts[0][r] = parts[1][r] = all_floats(0.0f);
    const int16_t *codes = panel.codes, *x = rows.x;
    for (int b = 0; b < rows.num_blocks; ++b) {
        const int columns = rows.blocks[b].length;
        Ints dots[2][kRows];
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) dots[0][r] = dots[1][r] = all_words(0);
        for (int column = 0; column < columns; column += 2, codes += 2 * kLanes) {
            const Ints first = load_register(static_cast<const void*>(codes));
            const Ints second = load_register(static_cast<const void*>(codes + kSecondCode));
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) {
                const Ints values = all_pairs(x + r * columns + column);
                add_products(&dots[0][r], first, values);
                add_products(&dots[1][r], second, values);
            }
        }
        x += kRows * columns;
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            const Floats scales = load_register(panel.scales[b] + i * kSecondFloat);
            const Floats zeros = kLess == Less::kZeros ? load_register(panel.mins[b] + i * kSecondFloat) : scales;
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) {
                Floats values = to_floats(dots[i][r]);
                if (kLess == Less::kZeros)
                    values = subtract_product(zeros, all_floats(rows.offsets[b * kRows + r]), values);
                parts[i][r] = multiply_add(values, scales, parts[i][r]);
            }
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        Floats least[kRows];
        if (kLess == Less::kMins) {
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) least[r] = all_floats(0.0f);
            for (int b = 0; b < rows.num_blocks; ++b) {
                const Floats mins = load_register(panel.mins[b] + i * kSecondFloat);
#pragma GCC unroll 6
                for (int r = 0; r < kRows; ++r)
                    least[r] = multiply_add(all_floats(rows.offsets[b * kRows + r]), mins, least[r]);
            }
        }
        const Floats steps = load_register(panel.steps + i * kSecondFloat);
        const Floats min_steps = load_register(panel.min_steps + i * kSecondFloat);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            Floats total = parts[i][r];
            if (kLess == Less::kMins && has_steps) total = multiply_subtract(total, steps, times(least[r], min_steps));
            else if (kLess == Less::kMins) total = minus(total, least[r]);
            else if (has_steps) total = times(total, steps);
            float* const sum = sums + r * kLanes + i * kSecondSum;
            store_register(sum, multiply_add(total, all_floats(rows.scales[r]), load_register(sum)));
        }
    }
}

template <Less kLess>
void add_tile(const linear_weight& w, const Panel& panel, const Tile& tile, int64_t index, float* sums) {
    static constexpr decltype(&add_span<1, kLess>) kAdd[] = {add_span<1, kLess>, add_span<2, kLess>, add_span<3, kLess>,
                                                             add_span<4, kLess>, add_span<5, kLess>, add_span<6, kLess>};
    const Span& span = spans_of(w)[index];
    const SpanRows rows{blocks_of(w) + span.first_block, span.last_block - span.first_block,
                        static_cast<const int16_t*>(tile.codes[0]) + span.first_column * tile.rows,
                        tile.offsets + span.first_block * tile.rows, tile.scales + index * tile.rows};
    kAdd[tile.rows - 1](panel, is_grouped(w) && has_steps(w), rows, sums);
}

void store_row(const linear_weight& w, const float* factors, float* sums, int64_t row_block, const Output& output, int64_t row) {
    for (int64_t i = 0; factors && i < kLanes; i += kRegisterLanes)  // fused, so that no compiler fuses what is added afterwards
        store_register(sums + i, multiply_add(load_register(sums + i), load_register(factors + i), all_floats(0.0f)));
#if defined(__AVX512F__)
    store(w, load_register(sums), row_block, output, static_cast<int>(row));
#else
    store(w, load_floats(sums), row_block, output.out + row * output.stride, output.accumulate);
#endif
}

void multiply(const linear_weight& w, const Tile* tiles, int64_t num_tiles, int64_t first, int64_t last,
              const Output& output, void* own) {
    const Memory memory(own);
    const auto add = w.zero_kind == PARLOR_ZERO_MIN ? add_tile<Less::kMins>
        : is_grouped(w) || zeros_in_codes(w) ? add_tile<Less::kNothing> : add_tile<Less::kZeros>;
    for (int64_t begin = first; begin < last; begin += kPanelRowBlocks) {
        const int64_t count = last - begin < kPanelRowBlocks ? last - begin : kPanelRowBlocks;
        memory.clear(num_tiles);
        for (int64_t span = 0; span < w.num_spans; ++span) {
            for (int64_t i = 0; i < kPanelRowBlocks; ++i) {
                // Of an odd number the last one is multiplied once more where two are at a time; that result is left.
                const int64_t row_block = begin + (i < count ? i : 0);
                if (i >= count && kHasHalves) break;
                if (is_grouped(w)) unpack_groups(w, span, row_block, memory.panels + i);
                else unpack_span(w, spans_of(w)[span], row_block, memory.panels + i);
            }
            for (int64_t t = 0; t < num_tiles; ++t)
                for (int64_t i = 0; i < count; i += kTogether)
                    add(w, memory.panels[i], tiles[t], span, memory.sums_of(t, i));
        }
        for (int64_t t = 0; t < num_tiles; ++t)
            for (int64_t i = 0; i < count; ++i) {
                const float* const factors =
                    is_grouped(w) && has_factors(w) ? w.factors + (begin + i) * kLanes : nullptr;
                for (int64_t r = 0; r < tiles[t].filled; ++r)
                    store_row(w, factors, memory.sums_of(t, i) + r * kLanes, begin + i, output, tiles[t].first_row + r);
            }
    }
}

}  // namespace

ManyRowKernels rounded_panels() {
    return {kTileRows, [](int rows) { return rows; }, kPanelRowBlocks, Memory::bytes, multiply, nullptr, avx2::stage_rounded};
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
