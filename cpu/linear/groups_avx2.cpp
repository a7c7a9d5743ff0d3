// Weights in small groups for 1..8 rows with AVX2, at most four rows at a time.
//
// Bound by the multiplier: activations of 12 bits are multiplied as pairs of int16, eight outputs in a register.
#include <type_traits>

#include "groups_avx2.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int kMaxRows = 8;
constexpr int kRowsAtOnce = 4;        // have their sums in registers
constexpr int kPrefetchBytes = 2048;  // ahead

// The values + zero of a table of 16, bytes 8 * byte .. 8 * byte + 7 of each, in both halves of a register.
inline __m256i load_table(const linear_weight& w, int byte) {
    alignas(16) uint8_t bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(w.table[i] >> 8 * byte);
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// Half a row block, for the rows from first_row on.
template <int kRows, int kKind, int kScale, bool kMins, int kSize>
void half_block(const linear_weight& w, const Tile& tile, const GroupStream& stream, int half, int first_row,
                __m256* sums) {
    constexpr int64_t kUnitBytes = unit_lines(kKind) * 64;
    constexpr bool kTwoLevels = kScale == PARLOR_SCALE_STEPS, kIsWide = kKind == PARLOR_LINEAR_W4;
    const __m256i table = load_table(w, 0), upper_table = load_table(w, 1);
    const int64_t blocks_a_group = kIsWide ? w.group_size / kSize : 1;
    const int16_t* const x = static_cast<const int16_t*>(tile.codes[0]);
    __m256 parts[kRows], least[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r] = parts[r] = least[r] = _mm256_setzero_ps();
    const Span* span = spans_of(w);
    for (int64_t block = 0; block < w.num_blocks; ++block) {
        const int64_t column = block * kSize, group = kIsWide ? block / blocks_a_group : block;
        const uint8_t* const unit = stream.codes + column / kGroupUnit * kUnitBytes + half * 32;
        if (half == 0 && column % kGroupUnit == 0) {
#pragma GCC unroll 8
            for (int line = 0; line < unit_lines(kKind); ++line)
                _mm_prefetch(reinterpret_cast<const char*>(unit) + line * 64 + kPrefetchBytes, _MM_HINT_T0);
        }
        const int16_t* const group_x = x + column * tile.rows + first_row * kSize;
        const float* const offsets = tile.offsets + block * tile.rows + first_row;
        __m256i dots[kRows];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
            int32_t start;
            __builtin_memcpy(&start, offsets + r, sizeof start);
            dots[r] = kMins ? _mm256_setzero_si256() : _mm256_set1_epi32(start);
        }
        const auto unpack_quad = [&](int q, __m256i* even, __m256i* odd) {
            const __m256i code = quad<kKind>(unit, q, table);
            *even = code_pairs<8>(code, 0), *odd = code_pairs<8>(code, 1);
            if (kIsWide) {
                const __m256i lower = _mm256_shuffle_epi8(table, code), upper = _mm256_shuffle_epi8(upper_table, code);
                *even = _mm256_or_si256(code_pairs<8>(lower, 0), _mm256_slli_epi16(upper, 8));
                *odd = _mm256_blendv_epi8(code_pairs<8>(lower, 1), upper, _mm256_set1_epi16(static_cast<int16_t>(0xFF00)));
            }
        };
        const auto add_quads = [&](int first_quad) {
#if defined(__AVXVNNI__)
#pragma GCC unroll 4
            for (int q = 0; q < kSize / 4; q += 2) {
                __m256i pairs[4];
                unpack_quad(first_quad + q, pairs, pairs + 1);
                unpack_quad(first_quad + q + 1, pairs + 2, pairs + 3);
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r) add_line(&dots[r], pairs, group_x + r * kSize + 4 * q);
            }
#else
#pragma GCC unroll 8
            for (int q = 0; q < kSize / 4; ++q) {
                __m256i even, odd;
                unpack_quad(first_quad + q, &even, &odd);
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r) {
                    const int16_t* const values = group_x + r * kSize + 4 * q;
                    add_products(&dots[r], even, broadcast_pair(values));
                    add_products(&dots[r], odd, broadcast_pair(values + 2));
                }
            }
#endif
        };
        if (kSize == 32 || column % kGroupUnit == 0) add_quads(0);
        else add_quads(4);
        const __m256 scales = load_factor<kScale>(stream.scales, group, half, true);
        const __m256 mins = kMins ? load_factor<kScale>(stream.mins, group, half, false) : scales;
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
            parts[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]), scales, parts[r]);
            if (kMins) least[r] = _mm256_fmadd_ps(_mm256_set1_ps(offsets[r]), mins, least[r]);
        }
        if (block + 1 < span->last_block) continue;
        const int64_t index = span - spans_of(w);
        const int64_t place = index * kLanes + half * 8;
        const __m256 steps = kTwoLevels ? load_8_halves(stream.steps + place) : _mm256_setzero_ps();
        const __m256 min_steps = kTwoLevels && kMins ? load_8_halves(stream.min_steps + place) : steps;
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
            __m256 total = parts[r];
            if (kTwoLevels && kMins) total = _mm256_fmsub_ps(total, steps, _mm256_mul_ps(least[r], min_steps));
            else if (kTwoLevels) total = _mm256_mul_ps(total, steps);
            else if (kMins) total = _mm256_sub_ps(total, least[r]);
            const __m256 x_scale = _mm256_set1_ps(tile.scales[index * tile.rows + first_row + r]);
            sums[r] = _mm256_fmadd_ps(total, x_scale, sums[r]);
            parts[r] = least[r] = _mm256_setzero_ps();
        }
        ++span;
    }
}

template <int kRows, int kKind, int kScale, bool kMins, int kSize>
void rows_of(const linear_weight& w, const Tile& tile, int first_row, int64_t first, int64_t last,
             const Output& output) {
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const GroupStream stream = group_stream(w, row_block);
        __m256 halves[2][kRows];
        for (int half = 0; half < 2; ++half)
            half_block<kRows, kKind, kScale, kMins, kSize>(w, tile, stream, half, first_row, halves[half]);
        if (stream.factors) {  // fused, so that no compiler fuses what is added afterwards
            const Halves factors = load_floats(stream.factors);
            for (int r = 0; r < kRows; ++r) {
                halves[0][r] = _mm256_fmadd_ps(halves[0][r], factors.low, _mm256_setzero_ps());
                halves[1][r] = _mm256_fmadd_ps(halves[1][r], factors.high, _mm256_setzero_ps());
            }
        }
        for (int r = 0; r < kRows && first_row + r < output.rows; ++r)
            store(w, Halves{halves[0][r], halves[1][r]}, row_block, output.out + (first_row + r) * output.stride,
                  output.accumulate);
    }
}

template <int kRows>
void rounded_kind(const linear_weight& w, const Tile& tile, int row, int64_t first, int64_t last, const Output& output) {
    switch (w.kind) {
        case PARLOR_LINEAR_G2: return rows_of<kRows, PARLOR_LINEAR_G2, PARLOR_SCALE_STEPS, true, 16>(w, tile, row, first, last, output);
        case PARLOR_LINEAR_G3: return rows_of<kRows, PARLOR_LINEAR_G3, PARLOR_SCALE_STEPS, false, 16>(w, tile, row, first, last, output);
        case PARLOR_LINEAR_G4:
            if (has_steps(w)) return rows_of<kRows, PARLOR_LINEAR_G4, PARLOR_SCALE_STEPS, true, 32>(w, tile, row, first, last, output);
            return rows_of<kRows, PARLOR_LINEAR_G4, PARLOR_SCALE_F16, true, 32>(w, tile, row, first, last, output);
        case PARLOR_LINEAR_G5:
            if (has_steps(w)) return rows_of<kRows, PARLOR_LINEAR_G5, PARLOR_SCALE_STEPS, true, 32>(w, tile, row, first, last, output);
            if (w.zero_kind == PARLOR_ZERO_ONE) return rows_of<kRows, PARLOR_LINEAR_G5, PARLOR_SCALE_F16, false, 32>(w, tile, row, first, last, output);
            return rows_of<kRows, PARLOR_LINEAR_G5, PARLOR_SCALE_F16, true, 32>(w, tile, row, first, last, output);
        case PARLOR_LINEAR_G6: return rows_of<kRows, PARLOR_LINEAR_G6, PARLOR_SCALE_STEPS, false, 16>(w, tile, row, first, last, output);
        case PARLOR_LINEAR_W4: return rows_of<kRows, PARLOR_LINEAR_W4, PARLOR_SCALE_F16, false, 32>(w, tile, row, first, last, output);
        default: break;
    }
    switch (w.scale_kind) {
        case PARLOR_SCALE_STEPS: return rows_of<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_STEPS, false, 32>(w, tile, row, first, last, output);
        case PARLOR_SCALE_E8M0: return rows_of<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_E8M0, false, 32>(w, tile, row, first, last, output);
        case PARLOR_SCALE_E4M3: return rows_of<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_E4M3, false, 16>(w, tile, row, first, last, output);
        default: return rows_of<kRows, PARLOR_LINEAR_T4, PARLOR_SCALE_F16, false, 32>(w, tile, row, first, last, output);
    }
}

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    for (int row = 0; row < tile.rows; row += kRowsAtOnce) {
        switch (tile.rows - row) {
            case 1: rounded_kind<1>(w, tile, row, first, last, output); break;
            case 2: rounded_kind<2>(w, tile, row, first, last, output); break;
            case 3: rounded_kind<3>(w, tile, row, first, last, output); break;
            default: rounded_kind<kRowsAtOnce>(w, tile, row, first, last, output);
        }
    }
}

}  // namespace

LinearKernels group_kernels() {
    return {kMaxRows, [](int rows) { return rows; }, rounded_rows, avx2::group_exact_rows, nullptr};
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
