// Rounded weights for many rows, with AVX2, AVX-VNNI and AVX-512: one source, in registers of 8 or 16 outputs.
//
// Bound by the multiplier: two vpdpwssd a cycle at most, on AVX2 two vpmaddwd, each with a vpaddd. So a section of the weight
// (256 columns of two row blocks) is unpacked once for all rows into panels of 8 KiB, codes as int16, their whole zero points
// taken off; tiles go over both at once with sums in 12 registers: three rows in four registers of codes with AVX2, seven loads
// for 12 products, six rows in two with AVX-512, eight loads. (With AVX2 six rows of one row block after the other read x twice.)
// The next tile's activations, a stretch of a few KiB elsewhere, are prefetched meanwhile. (vpdpbusd takes bytes, twice as many of
// them, but activations of 12 bits are two of those.)
#include <utility>

#include "groups.h"
#include "panel_memory.h"
#include "registers.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kPanelRowBlocks = 2;  // that are worked off together
constexpr int kHalves = kLanes / kRegisterLanes;
constexpr int kRegisters = kHalves * kPanelRowBlocks;  // of codes, side by side
constexpr int kTileRows = 12 / kRegisters;
constexpr int64_t kTileFloats = kTileRows * kLanes;
constexpr int kMaxBlocks = kSpanColumns / 16;  // of a span
constexpr int kWordBytes = sizeof(int16_t);

// A section of one row block.
struct alignas(64) Panel {
    int16_t codes[kSpanColumns * kLanes];  // [columns / 2][16 outputs][2], in the order of kPairOrder
    float scales[kMaxBlocks][kLanes];
    float mins[kMaxBlocks][kLanes];  // minimums, or zero points that are not in the codes
    float steps[kLanes], min_steps[kLanes];
};

// Where register i of those side by side lies, behind the first one: in the other half of a row block, or in the next row block.
constexpr int64_t code_place(int i) { return i % kHalves * 2 * kRegisterLanes + i / kHalves * sizeof(Panel) / sizeof(int16_t); }
constexpr int64_t float_place(int i) { return i % kHalves * kRegisterLanes + i / kHalves * sizeof(Panel) / sizeof(float); }
constexpr int64_t sum_place(int i) { return i % kHalves * kRegisterLanes + i / kHalves * kTileFloats; }

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
    const int16_t* next;  // x of the tile that is worked off next
};

// Add a span's share to the sums of a tile; `panel` is the first of those side by side. kColumns: of each block, 0: as the block says.
template <int kRows, Less kLess, int kColumns>
void add_span(const Panel& panel, bool has_steps, const SpanRows& rows, float* sums) {
    Floats parts[kRegisters][kRows];
#pragma GCC unroll 4
    for (int i = 0; i < kRegisters; ++i)
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) parts[i][r] = all_floats(0.0f);
    const int16_t *codes = panel.codes, *x = rows.x;
    for (int b = 0; b < rows.num_blocks; ++b) {
        const int columns = kColumns ? kColumns : rows.blocks[b].length;
        const char* const ahead = reinterpret_cast<const char*>(rows.next + (x - rows.x));
        for (int line = 0; line < kRows * columns * kWordBytes; line += 64) _mm_prefetch(ahead + line, _MM_HINT_T0);
        Ints dots[kRegisters][kRows];
        const auto multiply_pair = [&](int column, auto take) __attribute__((always_inline)) {
            Ints pairs[kRegisters];
#pragma GCC unroll 4
            for (int i = 0; i < kRegisters; ++i) pairs[i] = load_register(static_cast<const void*>(codes + code_place(i)));
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) {
                const Ints values = all_pairs(x + r * columns + column);
#pragma GCC unroll 4
                for (int i = 0; i < kRegisters; ++i) take(&dots[i][r], pairs[i], values);
            }
            codes += 2 * kLanes;
        };
        multiply_pair(0, [](Ints* sum, Ints codes_of, Ints values) { set_products(sum, codes_of, values); });
        for (int column = 2; column < columns; column += 2)
            multiply_pair(column, [](Ints* sum, Ints codes_of, Ints values) { add_products(sum, codes_of, values); });
        x += kRows * columns;
#pragma GCC unroll 4
        for (int i = 0; i < kRegisters; ++i) {
            const Floats scales = load_register(panel.scales[b] + float_place(i));
            const Floats zeros = kLess == Less::kZeros ? load_register(panel.mins[b] + float_place(i)) : scales;
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) {
                Floats values = to_floats(dots[i][r]);
                if (kLess == Less::kZeros)
                    values = subtract_product(zeros, all_floats(rows.offsets[b * kRows + r]), values);
                parts[i][r] = multiply_add(values, scales, parts[i][r]);
            }
        }
    }
    Floats least[kRegisters][kRows];  // all at once: an offset is loaded once, and no sum waits for itself
    if (kLess == Less::kMins) {
#pragma GCC unroll 4
        for (int i = 0; i < kRegisters; ++i)
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) least[i][r] = all_floats(0.0f);
        for (int b = 0; b < rows.num_blocks; ++b) {
            Floats offsets[kRows];
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) offsets[r] = all_floats(rows.offsets[b * kRows + r]);
#pragma GCC unroll 4
            for (int i = 0; i < kRegisters; ++i) {
                const Floats mins = load_register(panel.mins[b] + float_place(i));
#pragma GCC unroll 6
                for (int r = 0; r < kRows; ++r) least[i][r] = multiply_add(offsets[r], mins, least[i][r]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRegisters; ++i) {
        const Floats steps = load_register(panel.steps + float_place(i));
        const Floats min_steps = load_register(panel.min_steps + float_place(i));
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            Floats total = parts[i][r];
            if (kLess == Less::kMins && has_steps) total = multiply_subtract(total, steps, times(least[i][r], min_steps));
            else if (kLess == Less::kMins) total = minus(total, least[i][r]);
            else if (has_steps) total = times(total, steps);
            float* const sum = sums + r * kLanes + sum_place(i);
            store_register(sum, multiply_add(total, all_floats(rows.scales[r]), load_register(sum)));
        }
    }
}

// The add_span() of so many rows.
template <Less kLess, int kColumns, int... kRowsLessOne>
auto span_of_rows(int rows, std::integer_sequence<int, kRowsLessOne...>) {
    static constexpr decltype(&add_span<1, kLess, kColumns>) kAdd[] = {add_span<kRowsLessOne + 1, kLess, kColumns>...};
    return kAdd[rows - 1];
}

template <Less kLess, int kColumns>
void add_tile(const linear_weight& w, const Panel& panel, const Tile& tile, const Tile& next, int64_t index, float* sums) {
    const Span& span = spans_of(w)[index];
    const SpanRows rows{blocks_of(w) + span.first_block, span.last_block - span.first_block,
                        static_cast<const int16_t*>(tile.codes[0]) + span.first_column * tile.rows,
                        tile.offsets + span.first_block * tile.rows, tile.scales + index * tile.rows,
                        static_cast<const int16_t*>(next.codes[0]) + span.first_column * next.rows};
    const auto add = span_of_rows<kLess, kColumns>(tile.rows, std::make_integer_sequence<int, kTileRows>());
    add(panel, is_grouped(w) && has_steps(w), rows, sums);
}

template <Less kLess>
auto tile_of_blocks(const linear_weight& w) {
    if (!is_grouped(w)) return add_tile<kLess, 0>;
    return blocks_of(w)->length == 16 ? add_tile<kLess, 16> : add_tile<kLess, 32>;
}

// The add_tile() for this weight. Blocks of small groups are all alike, and a loop that ends at a constant is a little faster.
auto tile_of(const linear_weight& w) {
    if (w.zero_kind == PARLOR_ZERO_MIN) return tile_of_blocks<Less::kMins>(w);
    return is_grouped(w) || zeros_in_codes(w) ? tile_of_blocks<Less::kNothing>(w) : add_tile<Less::kZeros, 0>;
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
    const auto add = tile_of(w);
    for (int64_t begin = first; begin < last; begin += kPanelRowBlocks) {
        const int64_t count = last - begin < kPanelRowBlocks ? last - begin : kPanelRowBlocks;
        memory.clear(num_tiles);
        for (int64_t span = 0; span < w.num_spans; ++span) {
            for (int64_t i = 0; i < kPanelRowBlocks; ++i) {
                // Of an odd number the last one is multiplied twice; the second result is left.
                const int64_t row_block = begin + (i < count ? i : 0);
                if (is_grouped(w)) unpack_groups(w, span, row_block, memory.panels + i);
                else unpack_span(w, spans_of(w)[span], row_block, memory.panels + i);
            }
            for (int64_t t = 0; t < num_tiles; ++t)
                add(w, memory.panels[0], tiles[t], tiles[t + 1 < num_tiles ? t + 1 : t], span, memory.sums_of(t, 0));
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
