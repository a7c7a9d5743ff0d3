// The linear layer for 1..8 rows with AVX-512 and VNNI.
//
// Bound by reading the codes: half a byte a weight. So several row blocks, far apart in memory, are read
// at once as streams of their own with prefetches into the second-level cache, and the work on a line of
// 128 codes (two to six operations to unpack, four dot products a row) stays below the time the line takes to arrive.
#include "avx512.h"
#include "float8.h"
#include "streams.h"

namespace parlor {
namespace avx512 {
namespace {

constexpr int kMaxRows = 8;
constexpr int kFactorColumns = 256;  // whose scales are prefetched together

// Row blocks of one stream, in order: pointers only ever move forward.
struct Stream {
    const uint8_t* codes;
    const uint16_t* scales;
    const void* zeros;
};

inline Stream stream_at(const linear_weight& w, int64_t row_block) {
    const int64_t group_index = row_block * w.num_groups * kLanes;
    const int64_t zero_bytes = w.zero_kind == PARLOR_ZERO_F16 ? 2 : 1;
    return {static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w), w.scales + group_index,
            static_cast<const uint8_t*>(w.zeros) + group_index * zero_bytes};
}

inline __m512 load_zeros(const linear_weight& w, const Stream& stream, int64_t group) {
    if (w.zero_kind == PARLOR_ZERO_ONE) return _mm512_set1_ps(static_cast<float>(w.zero));
    if (w.zero_kind == PARLOR_ZERO_F16) return load_halves(static_cast<const uint16_t*>(stream.zeros) + group * kLanes);
    const uint8_t* bytes = static_cast<const uint8_t*>(stream.zeros) + group * kLanes;
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}

// Row blocks first + s * length + i of stream s, for all i < length.
// kColumns: of each block, where all have as many and that is known while compiling.
template <int kRows, class Reading, int kBits, bool kOneZero, int kColumns>
void rounded_streams(const linear_weight& w, const Tile& tile, int64_t first, int64_t length, const Output& output) {
    constexpr int kStreams = Reading::count, kLineColumns = 32 / kBits;
    const Block* const blocks = blocks_of(w);
    const Span* const spans_end = spans_of(w) + w.num_spans;
    const __m512i nibble = _mm512_set1_epi8(15);
    Stream streams[kStreams];
    for (int s = 0; s < kStreams; ++s) streams[s] = stream_at(w, first + s * length);

    for (int64_t i = 0; i < length; ++i) {
        const int8_t* high = static_cast<const int8_t*>(tile.codes[0]);
        const int8_t* low = static_cast<const int8_t*>(tile.codes[1]);
        __m512 sums[kStreams][kRows], parts[kStreams][kRows];
#pragma GCC unroll 8
        for (int s = 0; s < kStreams; ++s)
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) sums[s][r] = parts[s][r] = _mm512_setzero_ps();
        const float* x_scales = tile.scales;
        const Span* span = spans_of(w);
        int64_t last_of_span = span->last_block - 1;
        for (int64_t b = 0; b < w.num_blocks; ++b) {
            const int columns = kColumns > 0 ? kColumns : blocks[b].length;
            const float* const offsets = tile.offsets + b * kRows;
            constexpr int64_t kBlocksAhead = kColumns > 0 ? kFactorColumns / kColumns : 1;
            if (!Reading::prefetched && b % kBlocksAhead == 0) {
                constexpr int64_t kBytes = kBlocksAhead > 1 ? kBlocksAhead * kLanes * 2 : 64;
#pragma GCC unroll 8
                for (int s = 0; s < kStreams; ++s) prefetch_factors(streams[s].scales + blocks[b].group * kLanes, kBytes);
            }
            // Sums of the high plane and of the low one, times 16 and added in the end; 4-bit codes by their number of rows:
            //   1      and those of a line's next columns apart: their codes are taken times 16, as they stand in the
            //          line, so that two masks unpack it
            //   2      codes are shifted
            //   4, 8   all in `dots`: there are no registers for more, so codes are unpacked times 16 as well
            constexpr bool kApart = kBits == 4 && kRows == 1, kTogether = kBits == 4 && kRows > 2;
            __m512i dots[kStreams][kRows], low_dots[kStreams][kRows], next_dots[kStreams], next_low_dots[kStreams];
#pragma GCC unroll 8
            for (int s = 0; s < kStreams; ++s) {
                next_dots[s] = next_low_dots[s] = _mm512_setzero_si512();
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    const __m512i start = kBits == 4 && kOneZero ? broadcast_word(offsets + r) : _mm512_setzero_si512();
                    dots[s][r] = kTogether ? start : _mm512_setzero_si512();
                    low_dots[s][r] = kTogether ? _mm512_setzero_si512() : start;
                }
            }
            for (int column = 0; column < columns; column += kLineColumns) {
#pragma GCC unroll 8
                for (int s = 0; s < kStreams; ++s) {
                    const __m512i line = _mm512_loadu_si512(streams[s].codes);
                    if constexpr (Reading::prefetched) prefetch(streams[s].codes);
                    streams[s].codes += 64;
                    const __m512i first_4 = _mm512_and_si512(line, nibble);
                    const __m512i next_4_times_16 = _mm512_andnot_si512(nibble, line);
                    const __m512i next_4 = _mm512_and_si512(_mm512_srli_epi32(line, 4), nibble);
                    const __m512i first_4_times_16 = _mm512_andnot_si512(nibble, _mm512_slli_epi32(line, 4));
                    const auto add = [](__m512i* sum, __m512i codes, const int8_t* x) {
                        *sum = _mm512_dpbusd_epi32(*sum, codes, broadcast_word(x));
                    };
                    if (kApart) {
                        add(&dots[s][0], first_4, high + column);
                        add(&next_dots[s], next_4_times_16, high + column + 4);
                        add(&low_dots[s][0], first_4, low + column);
                        add(&next_low_dots[s], next_4_times_16, low + column + 4);
                    } else if (kBits == 4) {
#pragma GCC unroll 8
                        for (int r = 0; r < kRows; ++r) {
                            const int64_t place = r * columns + column;
                            __m512i* const low_sum = kTogether ? &dots[s][r] : &low_dots[s][r];
                            add(&dots[s][r], kTogether ? first_4_times_16 : first_4, high + place);
                            add(&dots[s][r], kTogether ? next_4_times_16 : next_4, high + place + 4);
                            add(low_sum, first_4, low + place);
                            add(low_sum, next_4, low + place + 4);
                        }
                    } else {
#pragma GCC unroll 8
                        for (int r = 0; r < kRows; ++r) {
                            const int64_t place = r * columns + column;
                            add(&dots[s][r], line, high + place);
                            add(&low_dots[s][r], line, low + place);
                        }
                    }
                }
            }
            high += kRows * columns;
            low += kRows * columns;
#pragma GCC unroll 8
            for (int s = 0; s < kStreams; ++s) {
                const __m512 scales = load_halves(streams[s].scales + blocks[b].group * kLanes);
                const __m512 zeros = kOneZero ? scales : load_zeros(w, streams[s], blocks[b].group);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    __m512i dot = dots[s][r];
                    if (!kTogether) dot = _mm512_add_epi32(_mm512_slli_epi32(dot, 4), low_dots[s][r]);
                    if (kApart)
                        dot = _mm512_add_epi32(_mm512_add_epi32(dot, next_dots[s]), _mm512_srai_epi32(next_low_dots[s], 4));
                    if (kBits == 8 && kOneZero) dot = _mm512_add_epi32(dot, broadcast_word(offsets + r));
                    __m512 value = _mm512_cvtepi32_ps(dot);
                    if (!kOneZero) value = _mm512_fnmadd_ps(zeros, _mm512_set1_ps(offsets[r]), value);
                    parts[s][r] = _mm512_fmadd_ps(value, scales, parts[s][r]);
                }
            }
            if (b < last_of_span) continue;
#pragma GCC unroll 8
            for (int s = 0; s < kStreams; ++s)
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    sums[s][r] = _mm512_fmadd_ps(parts[s][r], _mm512_set1_ps(x_scales[r]), sums[s][r]);
                    parts[s][r] = _mm512_setzero_ps();
                }
            x_scales += kRows;
            if (++span < spans_end) last_of_span = span->last_block - 1;
        }
#pragma GCC unroll 8
        for (int s = 0; s < kStreams; ++s) {
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r)
                if (r < output.rows) store(w, sums[s][r], first + s * length + i, output, r);
            streams[s] = stream_at(w, first + s * length + i + 1);
        }
    }
}

// Float32 throughout. Codes are widened one column of the line at a time: 16 outputs in a register.
template <int kRows, int kStreams, int kBits>
void exact_streams(const linear_weight& w, const Tile& tile, int64_t first, int64_t length, const Output& output) {
    constexpr int kLineColumns = 32 / kBits;
    const Block* const blocks = blocks_of(w);
    const __m512i code_mask = _mm512_set1_epi32((1 << kBits) - 1);
    Stream streams[kStreams];
    for (int s = 0; s < kStreams; ++s) streams[s] = stream_at(w, first + s * length);

    for (int64_t i = 0; i < length; ++i) {
        const float* x = static_cast<const float*>(tile.codes[0]);
        __m512 sums[kStreams][kRows];
        for (int s = 0; s < kStreams; ++s)
            for (int r = 0; r < kRows; ++r) sums[s][r] = _mm512_setzero_ps();
        for (int64_t b = 0; b < w.num_blocks; ++b) {
            const int columns = blocks[b].length;
            __m512 partial[kStreams][kRows], zeros[kStreams];
            for (int s = 0; s < kStreams; ++s) {
                zeros[s] = load_zeros(w, streams[s], blocks[b].group);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) partial[s][r] = _mm512_setzero_ps();
            }
            for (int column = 0; column < columns; column += kLineColumns) {
#pragma GCC unroll 8
                for (int s = 0; s < kStreams; ++s) {
                    const __m512i line = _mm512_loadu_si512(streams[s].codes);
                    prefetch(streams[s].codes);
                    streams[s].codes += 64;
#pragma GCC unroll 8
                    for (int k = 0; k < kLineColumns; ++k) {
                        const int shift = kBits == 4 ? k % 4 * 8 + k / 4 * 4 : k * 8;
                        const __m512i code = _mm512_and_si512(_mm512_srli_epi32(line, shift), code_mask);
                        const __m512 weight = _mm512_sub_ps(_mm512_cvtepi32_ps(code), zeros[s]);
#pragma GCC unroll 8
                        for (int r = 0; r < kRows; ++r)
                            partial[s][r] =
                                _mm512_fmadd_ps(weight, _mm512_set1_ps(x[r * columns + column + k]), partial[s][r]);
                    }
                }
            }
            x += kRows * columns;
            for (int s = 0; s < kStreams; ++s) {
                const __m512 scales = load_halves(streams[s].scales + blocks[b].group * kLanes);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) sums[s][r] = _mm512_fmadd_ps(partial[s][r], scales, sums[s][r]);
            }
        }
        for (int s = 0; s < kStreams; ++s) {
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r)
                if (r < output.rows) store(w, sums[s][r], first + s * length + i, output, r);
            streams[s] = stream_at(w, first + s * length + i + 1);
        }
    }
}

// Rows of a dense x; rows of the kernel that x lacks repeat the last one and are not stored.
template <int kRows>
struct Rows {
    const float* row[kRows];

    Rows(const float* x, int64_t stride, int rows) {
        for (int r = 0; r < kRows; ++r) row[r] = x + (r < rows ? r : rows - 1) * stride;
    }
};

// Two columns of 16 outputs each. `values` points at an even column.
template <int kKind>
inline void load_pair(const char* values, __m512* even, __m512* odd) {
    if (kKind == PARLOR_LINEAR_F32) {
        *even = _mm512_loadu_ps(values);
        *odd = _mm512_loadu_ps(values + 64);
    } else if (kKind == PARLOR_LINEAR_F16) {
        *even = load_halves(reinterpret_cast<const uint16_t*>(values));
        *odd = load_halves(reinterpret_cast<const uint16_t*>(values + 32));
    } else {
        const __m512i line = _mm512_loadu_si512(values);
        *even = _mm512_castsi512_ps(_mm512_slli_epi32(line, 16));
        *odd = _mm512_castsi512_ps(_mm512_and_si512(line, _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000))));
    }
}

// An odd last column; only that column's values are read.
template <int kKind>
inline __m512 load_single(const char* values) {
    if (kKind == PARLOR_LINEAR_F32) return _mm512_loadu_ps(values);
    if (kKind == PARLOR_LINEAR_F16) return load_halves(reinterpret_cast<const uint16_t*>(values));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(values), 16));
}

// Even and odd columns are summed apart, so that the additions of one stream need not wait for each other.
template <int kRows, int kStreams, int kKind>
void dense_streams(const linear_weight& w, const Rows<kRows>& x, int64_t first, int64_t length,
                   const Output& output) {
    constexpr int kPairBytes = kKind == PARLOR_LINEAR_F32 ? 128 : 64;
    const char* streams[kStreams];
    for (int s = 0; s < kStreams; ++s)
        streams[s] = static_cast<const char*>(w.codes) + (first + s * length) * row_block_bytes(w);

    for (int64_t i = 0; i < length; ++i) {
        __m512 even_sums[kStreams][kRows], odd_sums[kStreams][kRows];
#pragma GCC unroll 8
        for (int s = 0; s < kStreams; ++s)
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) even_sums[s][r] = odd_sums[s][r] = _mm512_setzero_ps();
        int64_t k = 0;
        for (; k + 2 <= w.k; k += 2) {
#pragma GCC unroll 8
            for (int s = 0; s < kStreams; ++s) {
                __m512 even, odd;
                load_pair<kKind>(streams[s], &even, &odd);
                for (int line = 0; line < kPairBytes; line += 64) prefetch(streams[s] + line);
                streams[s] += kPairBytes;
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    even_sums[s][r] = _mm512_fmadd_ps(even, _mm512_set1_ps(x.row[r][k]), even_sums[s][r]);
                    odd_sums[s][r] = _mm512_fmadd_ps(odd, _mm512_set1_ps(x.row[r][k + 1]), odd_sums[s][r]);
                }
            }
        }
        for (int s = 0; s < kStreams; ++s) {
            if (k < w.k) {
                const __m512 last = load_single<kKind>(streams[s]);
                streams[s] += kKind == PARLOR_LINEAR_BF16 ? kPairBytes : kPairBytes / 2;
                for (int r = 0; r < kRows; ++r)
                    even_sums[s][r] = _mm512_fmadd_ps(last, _mm512_set1_ps(x.row[r][k]), even_sums[s][r]);
            }
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r)
                if (r < output.rows)
                    store(w, _mm512_add_ps(even_sums[s][r], odd_sums[s][r]), first + s * length + i, output, r);
        }
    }
}

// The same of floats of 8 bits, four columns of a line of 64 bytes at a time; each weight is multiplied by its scale first.
template <int kRows, int kStreams>
void float8_streams(const linear_weight& w, const Rows<kRows>& x, int64_t first, int64_t length, const Output& output) {
    for (int64_t i = 0; i < length; ++i) {
        const uint8_t* streams[kStreams];
        __m512 even_sums[kStreams][kRows], odd_sums[kStreams][kRows];
#pragma GCC unroll 8
        for (int s = 0; s < kStreams; ++s) {
            streams[s] = static_cast<const uint8_t*>(w.codes) + (first + s * length + i) * row_block_bytes(w);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) even_sums[s][r] = odd_sums[s][r] = _mm512_setzero_ps();
        }
        for (int64_t group = 0; group < w.num_groups; ++group) {
            __m512 scales[kStreams];
#pragma GCC unroll 8
            for (int s = 0; s < kStreams; ++s) {
                const int64_t row_block = first + s * length + i;
                scales[s] = _mm512_mul_ps(_mm512_loadu_ps(w.factors + row_block * kLanes),
                                          _mm512_set1_ps(block_scale(w, row_block, group)));
            }
            const int64_t begin = group * w.group_size;
            const int64_t end = begin + w.group_size < w.k ? begin + w.group_size : w.k;
            int64_t k = begin;
            for (; k + 4 <= end; k += 4) {
#pragma GCC unroll 8
                for (int s = 0; s < kStreams; ++s) {
                    const __m512i line = _mm512_loadu_si512(streams[s]);
                    prefetch(streams[s]);
                    streams[s] += 64;
                    const __m512i even = e4m3_as_halves(_mm512_slli_epi16(line, 8));
                    const __m512i odd = e4m3_as_halves(
                        _mm512_and_si512(line, _mm512_set1_epi16(static_cast<int16_t>(0xFF00))));
                    const __m512 columns[4] = {
                        _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(even)), scales[s]),
                        _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(odd)), scales[s]),
                        _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(even, 1)), scales[s]),
                        _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(odd, 1)), scales[s])};
#pragma GCC unroll 8
                    for (int r = 0; r < kRows; ++r) {
                        const float* const own = x.row[r] + k;
                        even_sums[s][r] = _mm512_fmadd_ps(columns[0], _mm512_set1_ps(own[0]), even_sums[s][r]);
                        odd_sums[s][r] = _mm512_fmadd_ps(columns[1], _mm512_set1_ps(own[1]), odd_sums[s][r]);
                        even_sums[s][r] = _mm512_fmadd_ps(columns[2], _mm512_set1_ps(own[2]), even_sums[s][r]);
                        odd_sums[s][r] = _mm512_fmadd_ps(columns[3], _mm512_set1_ps(own[3]), odd_sums[s][r]);
                    }
                }
            }
            for (; k < end; ++k) {  // of the last group: behind it there are zeros up to a line's end
                for (int s = 0; s < kStreams; ++s) {
                    alignas(16) uint8_t bytes[kLanes];
                    const uint8_t* const line = streams[s] + (k - begin) % 4 / 2 * 2 * kLanes + k % 2;
                    for (int64_t lane = 0; lane < kLanes; ++lane) bytes[lane] = line[2 * lane];
                    const __m128i column = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
                    const __m512 values = _mm512_mul_ps(e4m3_to_float(column), scales[s]);
                    for (int r = 0; r < kRows; ++r)
                        even_sums[s][r] = _mm512_fmadd_ps(values, _mm512_set1_ps(x.row[r][k]), even_sums[s][r]);
                }
            }
        }
        for (int s = 0; s < kStreams; ++s) {
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r)
                if (r < output.rows)
                    store(w, _mm512_add_ps(even_sums[s][r], odd_sums[s][r]), first + s * length + i, output, r);
        }
    }
}

// Every block has so many columns, which are those of a group or, of the last, fewer.
inline bool has_blocks_of(const linear_weight& w, int64_t columns) {
    return w.group_size <= columns && w.num_blocks * columns == w.padded_k;
}

template <int kRows, int kPlain, int kBits, bool kOneZero, int kColumns>
void rounded_split(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    divide_rows<kRows, kPlain>(first, last, [&](auto streams, int64_t begin, int64_t length) {
        rounded_streams<kRows, decltype(streams), kBits, kOneZero, kColumns>(w, tile, begin, length, output);
    });
}

template <int kRows, int kBits, bool kOneZero>
void rounded_form(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    if constexpr (kRows == 1 && kBits == 4) {  // the usual groups
        if (has_blocks_of(w, 32)) return rounded_split<kRows, 2, kBits, kOneZero, 32>(w, tile, first, last, output);
        if (has_blocks_of(w, 128)) return rounded_split<kRows, 2, kBits, kOneZero, 128>(w, tile, first, last, output);
    }
    rounded_split<kRows, kBits == 8 ? 2 : 0, kBits, kOneZero, 0>(w, tile, first, last, output);
}

template <int kRows>
void rounded_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const bool one_zero = w.zero_kind == PARLOR_ZERO_ONE;
    if (w.kind == PARLOR_LINEAR_Q4)
        (one_zero ? rounded_form<kRows, 4, true> : rounded_form<kRows, 4, false>)(w, tile, first, last, output);
    else
        (one_zero ? rounded_form<kRows, 8, true> : rounded_form<kRows, 8, false>)(w, tile, first, last, output);
}

template <int kRows, int kBits>
void exact_split(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    divide<Streams<kRows <= 4 ? 2 : 1, true>>(first, last, [&](auto streams, int64_t begin, int64_t length) {
        exact_streams<kRows, streams.count, kBits>(w, tile, begin, length, output);
    });
}

template <int kRows>
void exact_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    (w.kind == PARLOR_LINEAR_Q4 ? exact_split<kRows, 4> : exact_split<kRows, 8>)(w, tile, first, last, output);
}

template <int kRows, int kKind>
void dense_split(const linear_weight& w, const Rows<kRows>& x, int64_t first, int64_t last, const Output& output) {
    divide_rows<kRows, 0>(first, last, [&](auto streams, int64_t begin, int64_t length) {
        if constexpr (kKind == PARLOR_LINEAR_F8) float8_streams<kRows, streams.count>(w, x, begin, length, output);
        else dense_streams<kRows, streams.count, kKind>(w, x, begin, length, output);
    });
}

template <int kRows>
void dense_kind(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    const Rows<kRows> rows(x, x_stride, output.rows);
    if (w.kind == PARLOR_LINEAR_F16) dense_split<kRows, PARLOR_LINEAR_F16>(w, rows, first, last, output);
    else if (w.kind == PARLOR_LINEAR_BF16) dense_split<kRows, PARLOR_LINEAR_BF16>(w, rows, first, last, output);
    else if (w.kind == PARLOR_LINEAR_F8) dense_split<kRows, PARLOR_LINEAR_F8>(w, rows, first, last, output);
    else dense_split<kRows, PARLOR_LINEAR_F32>(w, rows, first, last, output);
}

// Products take longer than reading the codes from three rows on (Zen 4), so there is a kernel for each number of rows of these.
// Dense ones exist for powers of two: others would take seconds to compile and save little.
inline int size_index(int rows) { return rows <= 1 ? 0 : rows <= 2 ? 1 : rows <= 4 ? 2 : 3; }

int tile_rows(int rows) { return rows; }

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&rounded_kind<1>) kRounded[kMaxRows] = {
        rounded_kind<1>, rounded_kind<2>, rounded_kind<3>, rounded_kind<4>,
        rounded_kind<5>, rounded_kind<6>, rounded_kind<7>, rounded_kind<8>};
    kRounded[tile.rows - 1](w, tile, first, last, output);
}

void exact_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&exact_kind<1>) kExact[kMaxRows] = {
        exact_kind<1>, exact_kind<2>, exact_kind<3>, exact_kind<4>,
        exact_kind<5>, exact_kind<6>, exact_kind<7>, exact_kind<8>};
    kExact[tile.rows - 1](w, tile, first, last, output);
}

void dense_rows(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    static constexpr decltype(&dense_kind<1>) kDense[] = {dense_kind<1>, dense_kind<2>, dense_kind<4>, dense_kind<8>};
    kDense[size_index(output.rows)](w, x, x_stride, first, last, output);
}

}  // namespace

LinearKernels linear_kernels() { return {kMaxRows, tile_rows, rounded_rows, exact_rows, dense_rows}; }

}  // namespace avx512
}  // namespace parlor
