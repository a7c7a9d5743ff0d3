// The linear layer with NEON's dot products, 1..8 rows at a time, of weights of every kind.
//
// One row is bound by reading the codes: a line of 128 codes takes 8 operations to unpack and 16 sdot, two planes of int8 for
// 12 bits of x. Up to four rows have their sums in registers, of half a row block. More, as prompts have, are eight, which
// share the codes of a block once they are unpacked, and are multiplied by one plane after the other, so that 16 sums are
// enough. Where there is smmla they are taken in pairs: it multiplies eight columns of two rows by those of two outputs, twice
// what sdot does. Sums of integers are exact: the bits are the same on every way. Prompts go over a row block tile by tile while
// it is in the cache.
#include "dotprod.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int kPrefetchBytes = 1024;  // ahead

// Sums of kRows rows and kWidth quarters of a row block.
template <class Number, int kRows, int kWidth>
using Sums = Number[kRows][kWidth];

template <int kKind>
inline int8x16_t looked_up(int8x16_t table, int8x16_t code) {
    return has_table(kKind) ? vqtbl1q_s8(table, vreinterpretq_u8_s8(code)) : code;
}

// Of kQuads * 4 columns of a unit, from quad kFirst on: a sum for each plane, and of W4 for each byte.
template <int kRows, int kWidth, int kKind, int kFirst, int kQuads>
__attribute__((always_inline)) inline void add_quads(const uint8_t* unit, const Tables& tables, const int8_t* const* planes, int64_t stride,
                      Sums<int32x4_t, kRows, kWidth>* dots) {
    constexpr int kLoaded = 4;  // quads of x in a register
    for_constants<kQuads / kLoaded>([&](auto part) __attribute__((always_inline)) {
        int8x16_t x[2][kRows];  // here and below, indices that are constants from the beginning keep arrays in registers
        for_constants<2 * kRows>([&](auto i) {
            x[i / kRows][i % kRows] = vld1q_s8(planes[i / kRows] + i % kRows * stride + part * kLoaded * 4);
        });
        for_constants<kLoaded>([&](auto lane) __attribute__((always_inline)) {
            constexpr int kLane = decltype(lane)::value, kQuad = kFirst + decltype(part)::value * kLoaded + kLane;
            for_constants<kWidth>([&](auto j) __attribute__((always_inline)) {
                const int8x16_t index = quad_codes<kKind, kQuad>(unit + j * 16);
                const int8x16_t code = looked_up<kKind>(tables.lower, index), upper = looked_up<kKind>(tables.upper, index);
                for_constants<2 * kRows>([&](auto i) __attribute__((always_inline)) {
                    constexpr int kPlane = i / kRows, kRow = i % kRows;
                    dots[kPlane][kRow][j] = vdotq_laneq_s32(dots[kPlane][kRow][j], code, x[kPlane][kRow], kLane);
                    if constexpr (kKind == PARLOR_LINEAR_W4)
                        dots[2 + kPlane][kRow][j] = vdotq_laneq_s32(dots[2 + kPlane][kRow][j], upper, x[kPlane][kRow], kLane);
                });
            });
        });
    });
}

constexpr int kManyWidth = kQuarters / 2;
constexpr int kPanelBytes = kManyWidth * 16;  // of four columns

#if defined(PARLOR_I8MM)
// Words of two registers in turn: of their lower halves or of the upper ones.
inline int8x16_t words_in_turn(int8x16_t first, int8x16_t second, bool upper) {
    const int32x4_t a = vreinterpretq_s32_s8(first), b = vreinterpretq_s32_s8(second);
    return vreinterpretq_s8_s32(upper ? vzip2q_s32(a, b) : vzip1q_s32(a, b));
}
#endif

// Codes of kQuads * 4 columns of a unit, as add_panel takes them, into a panel; of W4 the upper bytes into another.
template <int kKind, int kFirst, int kQuads>
__attribute__((always_inline)) inline void unpack_quads(const uint8_t* unit, const Tables& tables, int8_t* panel, int8_t* upper_panel) {
    for_constants<kQuads / 2>([&](auto pair) {
        constexpr int kQuad = kFirst + decltype(pair)::value * 2;
        for (int j = 0; j < kManyWidth; ++j) {
            const int8x16_t codes[2] = {quad_codes<kKind, kQuad>(unit + j * 16), quad_codes<kKind, kQuad + 1>(unit + j * 16)};
            for (int half = 0; half < 2; ++half) {
#if defined(PARLOR_I8MM)  // eight columns of two outputs
                const int8x16_t index = words_in_turn(codes[0], codes[1], half);
                const int64_t place = pair * 2 * kPanelBytes + (j * 2 + half) * 16;
#else
                const int8x16_t index = codes[half];
                const int64_t place = (pair * 2 + half) * kPanelBytes + j * 16;
#endif
                vst1q_s8(panel + place, looked_up<kKind>(tables.lower, index));
                if (kKind == PARLOR_LINEAR_W4) vst1q_s8(upper_panel + place, looked_up<kKind>(tables.upper, index));
            }
        }
    });
}

// Products of `columns` columns, a multiple of 16, of eight rows of a plane. Pairs of rows are staged as such (stage.cpp); then
// sums[2 i] has outputs 0 and 1 of row 2 i and then of row 2 i + 1, sums[2 i + 1] outputs 2 and 3.
__attribute__((always_inline)) inline void add_panel(const int8_t* panel, const int8_t* plane, int64_t stride, int columns,
                                                     Sums<int32x4_t, kManyRows, kManyWidth>& sums) {
    Sums<int32x4_t, kManyRows, kManyWidth> own;
    for_constants<kManyRows>([&](auto r) { for_constants<kManyWidth>([&](auto j) { own[r][j] = sums[r][j]; }); });
    for (int column = 0; column < columns; column += 16, panel += 4 * kPanelBytes) {
#if defined(PARLOR_I8MM)
        for_constants<2>([&](auto half) {
            int8x16_t pairs[kManyRows / 2];
            for_constants<kManyRows / 2>([&](auto pair) { pairs[pair] = vld1q_s8(plane + 2 * (pair * stride + column) + half * 16); });
            for_constants<2 * kManyWidth>([&](auto place) {
                const int8x16_t codes = vld1q_s8(panel + half * 2 * kPanelBytes + place * 16);
                for_constants<kManyRows / 2>([&](auto pair) {
                    int32x4_t& sum = own[2 * pair + place % 2][place / 2];
                    sum = vmmlaq_s32(sum, pairs[pair], codes);
                });
            });
        });
#else
        int8x16_t x[kManyRows];
        for_constants<kManyRows>([&](auto r) { x[r] = vld1q_s8(plane + r * stride + column); });
        for_constants<4>([&](auto quad) {
            for_constants<kManyWidth>([&](auto j) {
                const int8x16_t codes = vld1q_s8(panel + quad * kPanelBytes + j * 16);
                for_constants<kManyRows>([&](auto r) { own[r][j] = vdotq_laneq_s32(own[r][j], codes, x[r], decltype(quad)::value); });
            });
        });
#endif
    }
    for_constants<kManyRows>([&](auto r) { for_constants<kManyWidth>([&](auto j) { sums[r][j] = own[r][j]; }); });
}

inline void multiply_by_16(Sums<int32x4_t, kManyRows, kManyWidth>& sums) {
    for (auto& of_row : sums)
        for (int32x4_t& sum : of_row) sum = vshlq_n_s32(sum, 4);
}

// The sums of a block's products.
template <int kRows, int kWidth, int kKind>
struct Dots {
    static constexpr bool kIsMany = kRows == kManyRows;
    static constexpr int kParts = kIsMany ? 1 : kKind == PARLOR_LINEAR_W4 ? 4 : 2;

    Sums<int32x4_t, kRows, kWidth> parts[kParts] = {};

    // Of kQuads quads of each unit from `unit` on, from quad kFirst on.
    template <int kFirst, int kQuads>
    __attribute__((always_inline)) void add(const uint8_t* unit, const Tables& tables, const int8_t* const* planes, int columns) {
        constexpr int kColumns = kQuads * 4;
        if constexpr (kIsMany) {
            int8_t panel[kSpanColumns / 4 * kPanelBytes], upper[kKind == PARLOR_LINEAR_W4 ? sizeof panel : 1];
            for (int column = 0; column < columns; column += kColumns, unit += unit_bytes(kKind)) {
                __builtin_prefetch(unit + kPrefetchBytes);
                const int64_t place = column / 4 * kPanelBytes;
                unpack_quads<kKind, kFirst, kQuads>(unit, tables, panel + place, upper + (kKind == PARLOR_LINEAR_W4 ? place : 0));
            }
            if constexpr (kKind == PARLOR_LINEAR_W4) {
                for (int plane = 0; plane < 2; ++plane) {
                    add_panel(upper, planes[plane], columns, columns, parts[0]);
                    multiply_by_16(parts[0]);
                }
            }
            add_panel(panel, planes[0], columns, columns, parts[0]);
            multiply_by_16(parts[0]);
            add_panel(panel, planes[1], columns, columns, parts[0]);
        } else {
            const int8_t* x[2] = {planes[0], planes[1]};
            for (int left = columns; left > 0; left -= kColumns, unit += unit_bytes(kKind)) {
                __builtin_prefetch(unit + kPrefetchBytes);
                add_quads<kRows, kWidth, kKind, kFirst, kQuads>(unit, tables, x, columns, parts);
                for (const int8_t*& plane : x) plane += kColumns;
            }
        }
    }

    // 16 * high + low, 256 times that of W4's upper bytes.
    int32x4_t sum(int r, int j) const {
        if constexpr (kIsMany) {
#if defined(PARLOR_I8MM)
            const int64x2_t first = vreinterpretq_s64_s32(parts[0][r & ~1][j]), second = vreinterpretq_s64_s32(parts[0][r | 1][j]);
            return vreinterpretq_s32_s64(r % 2 ? vzip2q_s64(first, second) : vzip1q_s64(first, second));
#else
            return parts[0][r][j];
#endif
        } else {
            int32x4_t dot = vaddq_s32(vshlq_n_s32(parts[0][r][j], 4), parts[1][r][j]);
            if constexpr (kKind == PARLOR_LINEAR_W4)
                dot = vaddq_s32(dot, vshlq_n_s32(vaddq_s32(vshlq_n_s32(parts[2][r][j], 4), parts[3][r][j]), 8));
            return dot;
        }
    }
};

inline int32x4_t integer_offset(const float* offset) {
    int32_t bits;
    __builtin_memcpy(&bits, offset, sizeof bits);
    return vdupq_n_s32(bits);
}

// What a block's sums are of: the rows of a tile, quarters from `quarter` on of a row block.
struct Place {
    const linear_weight& w;
    const Tile& tile;
    int64_t row_block;
    int quarter;
};

template <int kRows, int kWidth>
void store_sums(const linear_weight& w, int64_t row_block, int quarter, int first_row,
                const Sums<float32x4_t, kRows, kWidth>& sums, const Output& output) {
    for (int j = 0; j < kWidth; ++j) {
        const int64_t column = row_block * kLanes + (quarter + j) * 4;
        for (int r = 0; r < kRows && first_row + r < output.rows; ++r) {
            float values[4];
            vst1q_f32(values, sums[r][j]);
            float* const out = output.out + (first_row + r) * output.stride + column;
            for (int64_t i = 0; i < 4 && column + i < w.n; ++i) {
                const float sum = w.bias ? values[i] + w.bias[column + i] : values[i];
                out[i] = output.accumulate ? out[i] + sum : sum;
            }
        }
    }
}

inline float32x4_t zero_points(const linear_weight& w, int64_t index) {
    if (w.zero_kind == PARLOR_ZERO_F16) return load_4_halves(static_cast<const uint16_t*>(w.zeros) + index);
    return load_4_bytes(static_cast<const uint8_t*>(w.zeros) + index, false);
}

// Codes of 4 or 8 bits, blocks of whole units.
template <int kRows, int kWidth, int kKind, bool kOneZero>
void plain_sums(const Place& p, const Output& output) {
    const linear_weight& w = p.w;
    const Tables tables(w);
    const int8_t* planes[2] = {static_cast<const int8_t*>(p.tile.codes[0]), static_cast<const int8_t*>(p.tile.codes[1])};
    const uint8_t* unit = static_cast<const uint8_t*>(w.codes) + p.row_block * row_block_bytes(w) + p.quarter * 16;
    Sums<float32x4_t, kRows, kWidth> sums, parts;
    for (int r = 0; r < kRows; ++r)
        for (int j = 0; j < kWidth; ++j) sums[r][j] = parts[r][j] = vdupq_n_f32(0.0f);
    const Span* span = spans_of(w);
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        const Block& block = blocks_of(w)[b];
        Dots<kRows, kWidth, kKind> dots;
        dots.template add<0, kUnitQuads>(unit, tables, planes, block.length);
        unit += block.length / kGroupUnit * unit_bytes(kKind);
        for (const int8_t*& plane : planes) plane += block.length * kRows;
        const bool ends_span = b + 1 == span->last_block;
        const float* const offsets = p.tile.offsets + b * kRows;
        const float* const x_scales = p.tile.scales + (span - spans_of(w)) * kRows;
        for (int j = 0; j < kWidth; ++j) {
            const int64_t index = (p.row_block * w.num_groups + block.group) * kLanes + (p.quarter + j) * 4;
            const float32x4_t scale = load_4_halves(w.scales + index);
            const float32x4_t zero = kOneZero ? scale : zero_points(w, index);
            for (int r = 0; r < kRows; ++r) {
                int32x4_t dot = dots.sum(r, j);
                if (kOneZero) dot = vaddq_s32(dot, integer_offset(offsets + r));
                else if (kKind == PARLOR_LINEAR_Q8) dot = vaddq_s32(dot, vdupq_n_s32(kByteBias * static_cast<int32_t>(offsets[r])));
                float32x4_t value = vcvtq_f32_s32(dot);
                if (!kOneZero) value = vfmsq_f32(value, zero, vdupq_n_f32(offsets[r]));
                parts[r][j] = vfmaq_f32(parts[r][j], value, scale);
                if (!ends_span) continue;
                sums[r][j] = vfmaq_f32(sums[r][j], parts[r][j], vdupq_n_f32(x_scales[r]));
                parts[r][j] = vdupq_n_f32(0.0f);
            }
        }
        if (ends_span) ++span;
    }
    store_sums<kRows, kWidth>(w, p.row_block, p.quarter, 0, sums, output);
}

template <int kScale>
inline float32x4_t load_scales(const void* source, int64_t place, bool is_signed) {
    const uint8_t* const bytes = static_cast<const uint8_t*>(source) + place;
    if (kScale == PARLOR_SCALE_F16) return load_4_halves(static_cast<const uint16_t*>(source) + place);
    if (kScale == PARLOR_SCALE_STEPS) return load_4_bytes(bytes, is_signed);
    float values[4];
    for (int i = 0; i < 4; ++i)
        values[i] = kScale == PARLOR_SCALE_E8M0 ? bits_to_float(static_cast<uint32_t>(bytes[i]) << 23)
                                                : half_to_float(e4m3_as_half(bytes[i]));
    return vld1q_f32(values);
}

// Weights in small groups, see groups.h: a block has kSize columns.
template <int kRows, int kWidth, int kKind, int kScale, bool kMins, int kSize>
void group_sums(const Place& p, const Output& output) {
    constexpr bool kTwoLevels = kScale == PARLOR_SCALE_STEPS;
    constexpr int64_t kBlocksAUnit = kGroupUnit / kSize;
    const linear_weight& w = p.w;
    const GroupStream stream = group_stream(w, p.row_block);
    const Tables tables(w);
    const int64_t blocks_a_group = w.group_size / kSize, lane = p.quarter * 4;
    const int8_t* planes[2] = {static_cast<const int8_t*>(p.tile.codes[0]), static_cast<const int8_t*>(p.tile.codes[1])};
    Sums<float32x4_t, kRows, kWidth> sums, parts, least;
    for (int r = 0; r < kRows; ++r)
        for (int j = 0; j < kWidth; ++j) sums[r][j] = parts[r][j] = least[r][j] = vdupq_n_f32(0.0f);
    const Span* span = spans_of(w);
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        const uint8_t* const unit = stream.codes + b / kBlocksAUnit * unit_bytes(kKind) + lane * 4;
        Dots<kRows, kWidth, kKind> dots;
        if (b % kBlocksAUnit == 0) dots.template add<0, kSize / 4>(unit, tables, planes, kSize);
        else dots.template add<kUnitQuads / 2, kUnitQuads / 2>(unit, tables, planes, kSize);
        for (const int8_t*& plane : planes) plane += kSize * kRows;
        const float* const offsets = p.tile.offsets + b * kRows;
        const int64_t place = b / blocks_a_group * kLanes + lane;
        for (int j = 0; j < kWidth; ++j) {
            const float32x4_t scale = load_scales<kScale>(stream.scales, place + j * 4, true);
            const float32x4_t min = kMins ? load_scales<kScale>(stream.mins, place + j * 4, false) : scale;
            for (int r = 0; r < kRows; ++r) {
                int32x4_t dot = dots.sum(r, j);
                if (!kMins) dot = vaddq_s32(dot, integer_offset(offsets + r));
                parts[r][j] = vfmaq_f32(parts[r][j], vcvtq_f32_s32(dot), scale);
                if (kMins) least[r][j] = vfmaq_f32(least[r][j], vdupq_n_f32(offsets[r]), min);
            }
        }
        if (b + 1 < span->last_block) continue;
        const int64_t index = span - spans_of(w);
        for (int j = 0; j < kWidth; ++j) {
            const int64_t at = index * kLanes + lane + j * 4;
            const float32x4_t step = kTwoLevels ? load_4_halves(stream.steps + at) : vdupq_n_f32(0.0f);
            const float32x4_t min_step = kTwoLevels && kMins ? load_4_halves(stream.min_steps + at) : step;
            for (int r = 0; r < kRows; ++r) {
                float32x4_t total = parts[r][j];
                if (kTwoLevels && kMins) total = vfmaq_f32(vnegq_f32(vmulq_f32(least[r][j], min_step)), total, step);
                else if (kTwoLevels) total = vmulq_f32(total, step);
                else if (kMins) total = vsubq_f32(total, least[r][j]);
                const float32x4_t x_scale = vdupq_n_f32(p.tile.scales[index * kRows + r]);
                sums[r][j] = vfmaq_f32(sums[r][j], total, x_scale);
                parts[r][j] = least[r][j] = vdupq_n_f32(0.0f);
            }
        }
        ++span;
    }
    for (int j = 0; stream.factors && j < kWidth; ++j)  // fused, so that no compiler fuses what is added afterwards
        for (int r = 0; r < kRows; ++r)
            sums[r][j] = vfmaq_f32(vdupq_n_f32(0.0f), sums[r][j], vld1q_f32(stream.factors + lane + j * 4));
    store_sums<kRows, kWidth>(w, p.row_block, p.quarter, 0, sums, output);
}

// A kernel with its numbers of rows and quarters: visit(rows, width) for all rows of a tile and row blocks [first, last).
template <class Visit>
void for_places(int rows, int64_t first, int64_t last, Visit visit) {
    const auto whole = [&](auto count, int64_t row_block) {
        constexpr int kRows = decltype(count)::value, kWidth = kRows == 1 ? kQuarters : kQuarters / 2;
        for (int quarter = 0; quarter < kQuarters; quarter += kWidth)
            visit(count, std::integral_constant<int, kWidth>(), row_block, quarter);
    };
    for (int64_t row_block = first; row_block < last; ++row_block) {
        switch (rows) {
            case 1: whole(std::integral_constant<int, 1>(), row_block); break;
            case 2: whole(std::integral_constant<int, 2>(), row_block); break;
            case 3: whole(std::integral_constant<int, 3>(), row_block); break;
            case kFewRows: whole(std::integral_constant<int, kFewRows>(), row_block); break;
            default: whole(std::integral_constant<int, kManyRows>(), row_block);
        }
    }
}

template <int kKind, bool kOneZero>
void plain_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    for_places(tile.rows, first, last, [&](auto rows, auto width, int64_t row_block, int quarter) {
        plain_sums<decltype(rows)::value, decltype(width)::value, kKind, kOneZero>({w, tile, row_block, quarter}, output);
    });
}

template <int kKind, int kScale, bool kMins, int kSize>
void group_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    for_places(tile.rows, first, last, [&](auto rows, auto width, int64_t row_block, int quarter) {
        group_sums<decltype(rows)::value, decltype(width)::value, kKind, kScale, kMins, kSize>(
            {w, tile, row_block, quarter}, output);
    });
}

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const bool one_zero = w.zero_kind == PARLOR_ZERO_ONE;
    const auto kernel = w.kind == PARLOR_LINEAR_Q4
        ? (one_zero ? plain_kind<PARLOR_LINEAR_Q4, true> : plain_kind<PARLOR_LINEAR_Q4, false>)
        : (one_zero ? plain_kind<PARLOR_LINEAR_Q8, true> : plain_kind<PARLOR_LINEAR_Q8, false>);
    kernel(w, tile, first, last, output);
}

using Kernel = void (*)(const linear_weight&, const Tile&, int64_t, int64_t, const Output&);

Kernel kernel_of_groups(const linear_weight& w) {
    const bool steps = has_steps(w);
    switch (w.kind) {
        case PARLOR_LINEAR_G2: return group_kind<PARLOR_LINEAR_G2, PARLOR_SCALE_STEPS, true, 16>;
        case PARLOR_LINEAR_G3: return group_kind<PARLOR_LINEAR_G3, PARLOR_SCALE_STEPS, false, 16>;
        case PARLOR_LINEAR_G4:
            return steps ? group_kind<PARLOR_LINEAR_G4, PARLOR_SCALE_STEPS, true, 32>
                         : group_kind<PARLOR_LINEAR_G4, PARLOR_SCALE_F16, true, 32>;
        case PARLOR_LINEAR_G5:
            if (steps) return group_kind<PARLOR_LINEAR_G5, PARLOR_SCALE_STEPS, true, 32>;
            return w.zero_kind == PARLOR_ZERO_ONE ? group_kind<PARLOR_LINEAR_G5, PARLOR_SCALE_F16, false, 32>
                                                  : group_kind<PARLOR_LINEAR_G5, PARLOR_SCALE_F16, true, 32>;
        case PARLOR_LINEAR_G6: return group_kind<PARLOR_LINEAR_G6, PARLOR_SCALE_STEPS, false, 16>;
        case PARLOR_LINEAR_W4: return group_kind<PARLOR_LINEAR_W4, PARLOR_SCALE_F16, false, 32>;
        default: break;
    }
    switch (w.scale_kind) {
        case PARLOR_SCALE_STEPS: return group_kind<PARLOR_LINEAR_T4, PARLOR_SCALE_STEPS, false, 32>;
        case PARLOR_SCALE_E8M0: return group_kind<PARLOR_LINEAR_T4, PARLOR_SCALE_E8M0, false, 32>;
        case PARLOR_SCALE_E4M3: return group_kind<PARLOR_LINEAR_T4, PARLOR_SCALE_E4M3, false, 16>;
        default: return group_kind<PARLOR_LINEAR_T4, PARLOR_SCALE_F16, false, 32>;
    }
}

void grouped_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    kernel_of_groups(w)(w, tile, first, last, output);
}

// The 16 outputs of kColumns columns of dense values: one is the last of an odd number. `values` points at an even column.
template <int kKind, int kColumns>
inline void load_columns(const char* values, const float32x4_t* factors, float32x4_t (&columns)[2][kQuarters]) {
    for (int j = 0; j < kQuarters; ++j) {
        if (kKind == PARLOR_LINEAR_F32 || kKind == PARLOR_LINEAR_F16) {
            for (int odd = 0; odd < kColumns; ++odd) {
                const int64_t place = odd * kLanes + j * 4;
                columns[odd][j] = kKind == PARLOR_LINEAR_F32 ? vld1q_f32(reinterpret_cast<const float*>(values) + place)
                                                             : load_4_halves(reinterpret_cast<const uint16_t*>(values) + place);
            }
        } else if (kKind == PARLOR_LINEAR_BF16) {
            const uint32x4_t pairs = vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(values) + j * 16));
            columns[0][j] = vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16));
            columns[1][j] = vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF0000)));
        } else {  // see e4m3_as_half()
            const uint16x4_t pairs = vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const uint8_t*>(values) + j * 8));
            const auto widened = [&](uint16x4_t upper) {
                const uint16x4_t half = vand_u16(vreinterpret_u16_s16(vshr_n_s16(vreinterpret_s16_u16(upper), 1)), vdup_n_u16(0xBFFF));
                return vmulq_f32(vcvt_f32_f16(vreinterpret_f16_u16(half)), factors[j]);
            };
            columns[0][j] = widened(vshl_n_u16(pairs, 8));
            columns[1][j] = widened(vand_u16(pairs, vdup_n_u16(0xFF00)));
        }
    }
}

template <int kRows, int kKind>
void dense_sums(const linear_weight& w, const float* x, int64_t x_stride, int64_t row_block, int first_row,
                const Output& output) {
    constexpr int64_t kPairBytes = 2 * kLanes * (kKind == PARLOR_LINEAR_F32 ? 4 : kKind == PARLOR_LINEAR_F8 ? 1 : 2);
    const char* values = static_cast<const char*>(w.codes) + row_block * row_block_bytes(w);
    Sums<float32x4_t, kRows, kQuarters> sums;
    for (auto& of_row : sums)
        for (float32x4_t& sum : of_row) sum = vdupq_n_f32(0.0f);
    float32x4_t factors[kQuarters], columns[2][kQuarters];
    const auto add = [&](auto count, int64_t k) __attribute__((always_inline)) {
        constexpr int kColumns = decltype(count)::value;
        if (kKind == PARLOR_LINEAR_F8 && k % w.group_size == 0) {
            const float scale = block_scale(w, row_block, k / w.group_size);
            for (int j = 0; j < kQuarters; ++j)
                factors[j] = vmulq_n_f32(vld1q_f32(w.factors + row_block * kLanes + j * 4), scale);
        }
        load_columns<kKind, kColumns>(values, factors, columns);
        for (int odd = 0; odd < kColumns; ++odd)
            for (int r = 0; r < kRows; ++r)
                for (int j = 0; j < kQuarters; ++j)
                    sums[r][j] = vfmaq_n_f32(sums[r][j], columns[odd][j], x[(first_row + r) * x_stride + k + odd]);
    };
    int64_t k = 0;
    for (; k + 2 <= w.k; k += 2, values += kPairBytes) {
        __builtin_prefetch(values + kPrefetchBytes);
        add(std::integral_constant<int, 2>(), k);
    }
    if (k < w.k) add(std::integral_constant<int, 1>(), k);
    store_sums<kRows, kQuarters>(w, row_block, 0, first_row, sums, output);
}

template <int kKind>
void dense_kind(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last, const Output& output) {
    for (int64_t row_block = first; row_block < last; ++row_block) {
        for (int row = 0; row < output.rows; row += kFewRows) {
            switch (output.rows - row) {
                case 1: dense_sums<1, kKind>(w, x, x_stride, row_block, row, output); break;
                case 2: dense_sums<2, kKind>(w, x, x_stride, row_block, row, output); break;
                case 3: dense_sums<3, kKind>(w, x, x_stride, row_block, row, output); break;
                default: dense_sums<kFewRows, kKind>(w, x, x_stride, row_block, row, output);
            }
        }
    }
}

void dense_rows(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    const auto kernel = w.kind == PARLOR_LINEAR_F16 ? dense_kind<PARLOR_LINEAR_F16>
        : w.kind == PARLOR_LINEAR_BF16 ? dense_kind<PARLOR_LINEAR_BF16>
        : w.kind == PARLOR_LINEAR_F8 ? dense_kind<PARLOR_LINEAR_F8> : dense_kind<PARLOR_LINEAR_F32>;
    kernel(w, x, x_stride, first, last, output);
}

int tile_rows(int rows) { return rows <= kFewRows ? rows : kManyRows; }

}  // namespace

// Codes times float32 activations (--exact) are left to plain code.
LinearKernels linear_kernels() {
    return {kManyRows, tile_rows, rounded_rows, plain::linear_kernels().exact_rows, dense_rows};
}

LinearKernels group_kernels() { return {kManyRows, tile_rows, grouped_rows, plain::group_kernels().exact_rows, nullptr}; }

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
