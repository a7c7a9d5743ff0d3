// Weights in small groups for 1..8 rows with AVX-512 and VNNI.
//
// Bound by reading the codes: 4.6 bits a weight of G4 in two levels, 6.6 of G6. A unit of 32 columns takes 1.5 to 3
// operations for each line to unpack, four dot products a line, and 8 a group for its scale and minimum, about half of
// the time that the unit takes to arrive. Row blocks are read as streams whose pointers only ever move forward: finding each row
// block's parts anew held up the next one's reading, 9 to 14% of the time (Zen 4).
#include "groups_avx512.h"
#include "streams.h"

namespace parlor {
namespace avx512 {
namespace {

constexpr int kMaxRows = 8;

// kInOrder: before the loads that follow, where compilers move each to where it is used. An AMD core's prefetchers follow lines that
// are asked for in the order of their addresses: one row of Q6_K took 1.38 times as long before (Zen 4). Kinds with nibble lines alone
// use them in that order anyway. Of more rows there are no registers for that.
template <bool kInOrder>
inline __m512i load_line(const uint8_t* source) {
#if defined(__AVX512VNNI__)  // not where the set is emulated
    if (kInOrder) {
        __m512i line;
        asm volatile("vmovdqu64 %1, %0" : "=v"(line) : "m"(*reinterpret_cast<const __m512i_u*>(source)));
        return line;
    }
#endif
    return _mm512_loadu_si512(source);
}

// The lines of a unit.
template <int kKind, bool kInOrder>
struct Unit {
    __m512i nibbles[4], pairs[2], bits;

    inline explicit Unit(const uint8_t* source) {
        if (has_nibbles(kKind)) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) nibbles[i] = load_line<kInOrder>(source + i * 64);
            source += 4 * 64;
        }
        if (has_pairs(kKind)) {
            pairs[0] = load_line<kInOrder>(source);
            pairs[1] = load_line<kInOrder>(source + 64);
            source += 2 * 64;
        }
        if (has_bits(kKind)) bits = load_line<kInOrder>(source);
    }

    // Codes of columns 4 q .. 4 q + 3, a byte each, of T4 what the table holds.
    inline __m512i quad(int q, __m512i table) const {
        const __m512i low = _mm512_set1_epi8(15);
        __m512i code = _mm512_setzero_si512();
        if (has_nibbles(kKind)) {
            const __m512i line = nibbles[q / 2];
            code = _mm512_and_si512(q % 2 ? _mm512_srli_epi32(line, 4) : line, low);
            if (kKind == PARLOR_LINEAR_T4) code = _mm512_shuffle_epi8(table, code);
        }
        if (has_pairs(kKind)) {
            const __m512i line = pairs[q / 4];
            const int from = q % 4 * 2, to = kKind == PARLOR_LINEAR_G6 ? 4 : 0;
            const __m512i mask = _mm512_set1_epi8(static_cast<char>(3 << to));
            code = _mm512_or_si512(code, _mm512_and_si512(shifted(line, to - from), mask));
        }
        if (has_bits(kKind)) {
            const int to = kKind == PARLOR_LINEAR_G5 ? 4 : 2;
            const __m512i mask = _mm512_set1_epi8(static_cast<char>(1 << to));
            code = _mm512_or_si512(code, _mm512_and_si512(shifted(bits, to - q), mask));
        }
        return code;
    }

    static inline __m512i shifted(__m512i line, int left) {
        return left > 0 ? _mm512_slli_epi32(line, left) : left < 0 ? _mm512_srli_epi32(line, -left) : line;
    }
};

template <int kScale, bool kMins>
inline void to_next_row_block(const linear_weight& w, int64_t code_bytes, GroupStream* stream) {
    const int64_t bytes = w.num_groups * kLanes * (kScale == PARLOR_SCALE_F16 ? 2 : 1);
    const int64_t steps = kScale == PARLOR_SCALE_STEPS ? w.k / kSharedColumns * kLanes : 0;
    stream->codes += code_bytes;
    stream->scales = static_cast<const uint8_t*>(stream->scales) + bytes;
    if (kMins) stream->mins = static_cast<const uint8_t*>(stream->mins) + bytes;
    stream->steps += steps;
    stream->min_steps += steps;
    if (stream->factors) stream->factors += kLanes;
}

template <int kRows, class Reading, int kKind, int kScale, bool kMins, int kSize>
void streams_of(const linear_weight& w, const Tile& tile, int64_t first, int64_t length, const Output& output) {
    constexpr int kStreams = Reading::count;
    constexpr int64_t kUnitBytes = unit_lines(kKind) * 64;
    constexpr int kGroups = 32 / kSize;  // of a unit
    const int64_t units = w.k / kGroupUnit;
    constexpr bool kTwoLevels = kScale == PARLOR_SCALE_STEPS, kIsWide = kKind == PARLOR_LINEAR_W4;
    const __m512i table = has_table(kKind) ? load_table(w, 0) : _mm512_setzero_si512();
    const __m512i upper_table = kIsWide ? load_table(w, 1) : table;
    const int64_t units_a_group = kIsWide ? w.group_size / kGroupUnit : 1;
    GroupStream streams[kStreams];
    for (int s = 0; s < kStreams; ++s) streams[s] = group_stream(w, first + s * length);
    for (int64_t i = 0; i < length; ++i) {
        __m512 sums[kStreams][kRows], parts[kStreams][kRows], least[kStreams][kRows];
#pragma GCC unroll 8
        for (int s = 0; s < kStreams; ++s) {
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) sums[s][r] = parts[s][r] = least[s][r] = _mm512_setzero_ps();
        }
        const int8_t* high = static_cast<const int8_t*>(tile.codes[0]);
        const int8_t* low = static_cast<const int8_t*>(tile.codes[1]);
        for (int64_t u = 0; u < units; ++u) {
            if (!Reading::prefetched && !kIsWide && u % (kSharedColumns / kGroupUnit) == 0) {
                constexpr int64_t kBytes = kSharedColumns / kSize * kLanes * (kScale == PARLOR_SCALE_F16 ? 2 : 1);
                const int64_t place = u / (kSharedColumns / kGroupUnit) * kBytes;
#pragma GCC unroll 8
                for (int s = 0; s < kStreams; ++s) {
                    prefetch_factors(static_cast<const uint8_t*>(streams[s].scales) + place, kBytes);
                    if (kMins) prefetch_factors(static_cast<const uint8_t*>(streams[s].mins) + place, kBytes);
                }
            }
#pragma GCC unroll 8
            for (int s = 0; s < kStreams; ++s) {
                const uint8_t* const codes = streams[s].codes + u * kUnitBytes;
                if constexpr (Reading::prefetched) {
#pragma GCC unroll 8
                    for (int line = 0; line < unit_lines(kKind); ++line) prefetch(codes + line * 64);
                }
                const Unit<kKind, kRows == 1 && (has_pairs(kKind) || has_bits(kKind))> unit(codes);
#pragma GCC unroll 2
                for (int g = 0; g < kGroups; ++g) {
                    const int64_t block = u * kGroups + g, group = kIsWide ? u / units_a_group : block;
                    const float* const offsets = tile.offsets + block * kRows;
                    __m512i dots[kRows], low_dots[kRows], upper_dots[kRows], upper_low_dots[kRows];
#pragma GCC unroll 8
                    for (int r = 0; r < kRows; ++r) {
                        dots[r] = upper_dots[r] = upper_low_dots[r] = _mm512_setzero_si512();
                        low_dots[r] = kMins ? _mm512_setzero_si512() : broadcast_word(offsets + r);
                    }
#pragma GCC unroll 8
                    for (int q = 0; q < kSize / 4; ++q) {
                        __m512i code = unit.quad(g * (kSize / 4) + q, table);
                        const __m512i upper = kIsWide ? _mm512_shuffle_epi8(upper_table, code) : code;
                        if (kIsWide) code = _mm512_shuffle_epi8(table, code);
#pragma GCC unroll 8
                        for (int r = 0; r < kRows; ++r) {
                            const int64_t place = (g * kRows + r) * kSize + 4 * q;
                            dots[r] = _mm512_dpbusd_epi32(dots[r], code, broadcast_word(high + place));
                            low_dots[r] = _mm512_dpbusd_epi32(low_dots[r], code, broadcast_word(low + place));
                            if (!kIsWide) continue;
                            upper_dots[r] = _mm512_dpbusd_epi32(upper_dots[r], upper, broadcast_word(high + place));
                            upper_low_dots[r] = _mm512_dpbusd_epi32(upper_low_dots[r], upper, broadcast_word(low + place));
                        }
                    }
                    const __m512 scales = load_scales<kScale>(streams[s], group);
                    const __m512 mins = kMins ? load_mins(kTwoLevels, streams[s], group) : scales;
#pragma GCC unroll 8
                    for (int r = 0; r < kRows; ++r) {
                        __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(dots[r], 4), low_dots[r]);
                        if (kIsWide) {
                            const __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(upper_dots[r], 4), upper_low_dots[r]);
                            dot = _mm512_add_epi32(dot, _mm512_slli_epi32(upper, 8));
                        }
                        parts[s][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scales, parts[s][r]);
                        if (kMins) least[s][r] = _mm512_fmadd_ps(_mm512_set1_ps(offsets[r]), mins, least[s][r]);
                    }
                }
            }
            high += kRows * kGroupUnit;
            low += kRows * kGroupUnit;
            if ((u + 1) % (kSharedColumns / kGroupUnit) != 0 && u + 1 < units) continue;
            const int64_t span = u / (kSharedColumns / kGroupUnit);
#pragma GCC unroll 8
            for (int s = 0; s < kStreams; ++s) {
                const __m512 steps = kTwoLevels ? load_halves(streams[s].steps + span * kLanes) : _mm512_setzero_ps();
                const __m512 min_steps =
                    kTwoLevels && kMins ? load_halves(streams[s].min_steps + span * kLanes) : steps;
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    __m512 total = parts[s][r];
                    if (kTwoLevels && kMins)
                        total = _mm512_fmsub_ps(total, steps, _mm512_mul_ps(least[s][r], min_steps));
                    else if (kTwoLevels) total = _mm512_mul_ps(total, steps);
                    else if (kMins) total = _mm512_sub_ps(total, least[s][r]);
                    const __m512 x_scale = _mm512_set1_ps(tile.scales[span * kRows + r]);
                    sums[s][r] = _mm512_fmadd_ps(total, x_scale, sums[s][r]);
                    parts[s][r] = least[s][r] = _mm512_setzero_ps();
                }
            }
        }
#pragma GCC unroll 8
        for (int s = 0; s < kStreams; ++s) {
            const __m512 factors = streams[s].factors ? _mm512_loadu_ps(streams[s].factors) : _mm512_set1_ps(1.0f);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r)
                if (r < output.rows) store(w, multiplied(sums[s][r], factors), first + s * length + i, output, r);
            to_next_row_block<kScale, kMins>(w, units * kUnitBytes, &streams[s]);
        }
    }
}

template <int kRows, int kKind, int kScale, bool kMins, int kSize>
void form(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    // Lines of one sort are best left to the prefetchers as one stream, of two sorts as two (Q4_K and Q6_K on a Zen 4).
    constexpr int kPlain = has_pairs(kKind) || has_bits(kKind) ? 2 : 1;
    divide_rows<kRows, kPlain>(first, last, [&](auto streams, int64_t begin, int64_t length) {
        streams_of<kRows, decltype(streams), kKind, kScale, kMins, kSize>(w, tile, begin, length, output);
    });
}

// The forms that there are, see linear_pack_groups().
template <int kRows>
void rounded_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    switch (w.kind) {
        case PARLOR_LINEAR_G2: return form<kRows, PARLOR_LINEAR_G2, PARLOR_SCALE_STEPS, true, 16>(w, tile, first, last, output);
        case PARLOR_LINEAR_G3: return form<kRows, PARLOR_LINEAR_G3, PARLOR_SCALE_STEPS, false, 16>(w, tile, first, last, output);
        case PARLOR_LINEAR_G4:
            if (has_steps(w)) return form<kRows, PARLOR_LINEAR_G4, PARLOR_SCALE_STEPS, true, 32>(w, tile, first, last, output);
            return form<kRows, PARLOR_LINEAR_G4, PARLOR_SCALE_F16, true, 32>(w, tile, first, last, output);
        case PARLOR_LINEAR_G5:
            if (has_steps(w)) return form<kRows, PARLOR_LINEAR_G5, PARLOR_SCALE_STEPS, true, 32>(w, tile, first, last, output);
            if (w.zero_kind == PARLOR_ZERO_ONE) return form<kRows, PARLOR_LINEAR_G5, PARLOR_SCALE_F16, false, 32>(w, tile, first, last, output);
            return form<kRows, PARLOR_LINEAR_G5, PARLOR_SCALE_F16, true, 32>(w, tile, first, last, output);
        case PARLOR_LINEAR_G6: return form<kRows, PARLOR_LINEAR_G6, PARLOR_SCALE_STEPS, false, 16>(w, tile, first, last, output);
        case PARLOR_LINEAR_W4: return form<kRows, PARLOR_LINEAR_W4, PARLOR_SCALE_F16, false, 32>(w, tile, first, last, output);
        default: break;
    }
    switch (w.scale_kind) {
        case PARLOR_SCALE_STEPS: return form<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_STEPS, false, 32>(w, tile, first, last, output);
        case PARLOR_SCALE_E8M0: return form<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_E8M0, false, 32>(w, tile, first, last, output);
        case PARLOR_SCALE_E4M3: return form<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_E4M3, false, 16>(w, tile, first, last, output);
        default: return form<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_F16, false, 32>(w, tile, first, last, output);
    }
}

inline int size_index(int rows) { return rows <= 1 ? 0 : rows <= 2 ? 1 : rows <= 4 ? 2 : 3; }

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&rounded_kind<1>) kRounded[] = {rounded_kind<1>, rounded_kind<2>, rounded_kind<4>,
                                                              rounded_kind<8>};
    kRounded[size_index(tile.rows)](w, tile, first, last, output);
}

}  // namespace

LinearKernels group_kernels() {
    return {kMaxRows, [](int rows) { return 1 << size_index(rows); }, rounded_rows, group_exact_rows, nullptr};
}

}  // namespace avx512
}  // namespace parlor
