// The linear layer's packed weights and the functions that each instruction set provides for it.
//
// Packed layout. Output rows are taken 16 at a time (a row block); short row blocks are filled up with zeros.
//   codes   [row blocks][padded_k / 8][16 outputs][4 bytes]   4-bit: the low nibbles of byte b are column b, the high
//                                                             ones column 4 + b of the 8 columns of this line
//           [row blocks][padded_k / 4][16 outputs][4 bytes]   8-bit
//   scales  [row blocks][groups][16] float16;   zeros the same, bytes or float16
// Each line is 64 bytes: what one dot instruction of VNNI, or a row of an AMX tile, takes for 16 outputs, and the
// columns of a row block follow each other in memory.
//   dense   [row blocks][k][16 outputs] float16 or float32;   [row blocks][padded_k / 2][16 outputs][2] bfloat16
//           [row blocks][padded_k / 2][16 outputs][2] e4m3, padded to 32 columns, with
//           factors [row blocks][16] float32;   block_scales [row blocks][groups] float32
//
// Blocks. Columns are worked off in blocks of at most 256 columns of one group, each a multiple of 32 (padded with
// zeros where a group ends); blocks that follow each other make up spans of at most 256 columns. Activations are
// rounded to 12 bits with one scale for a span, because with 8 bits the logits of a whole model come out 2 to 5% wrong.
// Where the dot instructions take bytes (VNNI, AMX, ARM), code = 16 * high + low, two planes of int8, and so for one row on AVX2
// (row_avx2.cpp: 64 * high + low); else AVX2 and plain code take int16, AVX-512 for many rows too. Products are summed exactly as
// integers within a block, and the rest is float32 in this order on every instruction set:
//   block:  f = float(dot) - zero * float(sum of activation codes);   part = fma(f, scale, part)
//   span:   sum = fma(part, activation scale, sum);   part = 0
// (PARLOR_ZERO_ONE: f = float(dot - zero * sum), all integers; the same with 4-bit codes and whole zero points.)
// So a row's result is the same to the bit whatever the number of rows and threads, and on all instruction sets
// that have a fused multiply-add. (A scale for each group instead of each span would cost the many-row kernel a third
// of its speed.)
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"

namespace parlor {

constexpr int kHighPlane = 16;          // what a code of the high plane counts in those of the low one
constexpr int kEvenPlane = 64;          // the same of row_avx2.cpp's planes, of six bits each
constexpr int kByteBias = 128;         // what codes of a byte are taken minus of, where only signed ones are multiplied
constexpr int kLargestCode = 127 * kHighPlane + kHighPlane / 2 - 1;
constexpr int64_t kLanes = 16;         // outputs of a row block
constexpr int64_t kSpanColumns = 256;   // and the longest block
constexpr int kColumnUnit = 32;        // block lengths are multiples of it

struct Block {
    int32_t source;  // first column of x (before perm)
    int32_t filled;  // columns that exist; the rest of length is padding
    int32_t length;
    int32_t group;
};

struct Span {
    int32_t first_block, last_block;  // last is one behind
    int32_t first_column, columns;    // as stored
};

// Rows of x as linear() gets them.
struct Input {
    const float* x;  // [rows, k]
    int64_t stride, rows;
    const float* norm;  // [k] or null: rows are to be RMS-normalized and multiplied by it
    float eps;
};

// Some rows of x as the kernels read them, block after block, the rows of a block after each other.
struct Tile {
    const void* codes[2];  // [block][rows][length] of activation codes. AVX-512, AMX, ARM's dot products, row_avx2.cpp: int8, high and low
                           // plane; else [0] only: int16, for AVX2 and panels.cpp in the order of kPairOrder. If the weight is exact float32 in [0]
    const float* scales;   // [span][rows] of the activation codes
    const float* offsets;  // [block][rows] sum of the codes; for PARLOR_ZERO_ONE int32: minus zero times that sum
    int rows;              // as laid out; missing ones are zeros
    int64_t first_row, filled;  // which rows of x and out these are
};

// The order in which AVX2 and panels.cpp have the columns of an activation: a line's bytes, masked and shifted as 16-bit words, give these
// pairs. Eight columns of 4-bit codes, four of 8-bit ones.
constexpr int kPairOrder[2][8] = {{0, 2, 4, 6, 1, 3, 5, 7}, {0, 2, 1, 3, 4, 6, 5, 7}};

struct Output {
    float* out;  // row 0 of the tile, where output 0 is or would be
    int64_t stride;
    int rows;    // to be written
    bool accumulate;
};

inline const Block* blocks_of(const linear_weight& w) { return static_cast<const Block*>(w.blocks); }

inline const Span* spans_of(const linear_weight& w) { return static_cast<const Span*>(w.spans); }

inline int64_t row_blocks_of(const linear_weight& w) { return (w.n + kLanes - 1) / kLanes; }

inline bool is_grouped(const linear_weight& w) {  // see groups.h
    return w.kind >= PARLOR_LINEAR_G2 && w.kind <= PARLOR_LINEAR_W4;
}

inline bool is_quantized(const linear_weight& w) { return w.kind <= PARLOR_LINEAR_Q8 || is_grouped(w); }

// Bytes of codes (or dense values) of one row block.
inline int64_t row_block_bytes(const linear_weight& w) {
    switch (w.kind) {
        case PARLOR_LINEAR_Q4: return w.padded_k * kLanes / 2;
        case PARLOR_LINEAR_Q8: return w.padded_k * kLanes;
        case PARLOR_LINEAR_F32: return w.padded_k * kLanes * 4;
        case PARLOR_LINEAR_F16: case PARLOR_LINEAR_BF16: return w.padded_k * kLanes * 2;
        case PARLOR_LINEAR_T4: case PARLOR_LINEAR_W4: return w.padded_k * kLanes / 2;
        case PARLOR_LINEAR_F8: return w.padded_k * kLanes;
        default: return w.padded_k * kLanes * (w.kind - PARLOR_LINEAR_G2 + 2) / 8;
    }
}

inline float bits_to_float(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t magnitude = half & 0x7FFF;
    if (magnitude >= 0x7C00) return bits_to_float(sign | 0x7F800000 | (magnitude & 0x3FF) << 13);
    // Exponents are rebased by a multiplication, which also makes subnormals right.
    const float value = bits_to_float(magnitude << 13) * bits_to_float(0x77800000);  // 2^112
    return sign ? -value : value;
}

constexpr float kE4M3Factor = 256.0f;  // 8-bit floats are taken for float16, which makes them so much smaller

// The bits of a float16: an 8-bit float's value / kE4M3Factor. (NaN is taken for a number; there must be none.)
inline uint16_t e4m3_as_half(uint8_t byte) { return static_cast<uint16_t>((byte & 0x80) << 8 | (byte & 0x7F) << 7); }

// What a row block's weights of F8 are multiplied by, beside the factors of its outputs.
inline float block_scale(const linear_weight& w, int64_t row_block, int64_t group) {
    return w.block_scales ? w.block_scales[row_block * w.num_groups + group] : 1.0f;
}

using Staging = void(const linear_weight& w, const Input& input, int tile_rows, void* const* codes, float* scales, float* offsets);

// What an instruction set provides. Row blocks are [first, last); a tile's rows are 1..max_rows.
struct LinearKernels {
    int max_rows;
    int (*tile_rows)(int rows);  // rows of the tile to make for so many: kernels exist for some numbers only
    // All row blocks at once for a few rows: bound by reading the codes.
    void (*rounded_rows)(const linear_weight&, const Tile&, int64_t first, int64_t last, const Output&);
    void (*exact_rows)(const linear_weight&, const Tile&, int64_t first, int64_t last, const Output&);
    void (*dense_rows)(const linear_weight&, const float* x, int64_t x_stride, int64_t first, int64_t last,
                       const Output&);
    // How a tile is staged for rounded_rows, if not as the set has it.
    Staging* stage = nullptr;
};

// What it provides for many rows. `memory` is the calling thread's own.
struct ManyRowKernels {
    int64_t max_rows;               // of a tile
    int (*tile_rows)(int rows);     // as above
    int64_t row_blocks;             // that are worked off together
    int64_t (*bytes)(int64_t rows); // of memory, rows of all tiles together
    void (*quantized)(const linear_weight&, const Tile* tiles, int64_t num_tiles, int64_t first, int64_t last,
                      const Output&, void* memory);
    void (*dense)(const linear_weight&, const Input&, int64_t first, int64_t last, const Output&, void* memory);
    // How tiles are staged for `quantized`, if not as those of few rows: as AVX2 has them.
    Staging* stage;
};

}  // namespace parlor

// Staging: stage.cpp, compiled for each set. At most 16 rows of x become a tile with room for tile_rows; missing
// rows are zeros. normalize_rows() writes all rows of x, as dense kernels want them: [rows, k].
PARLOR_DECLARE(void, stage_rounded, const linear_weight& w, const Input& input, int tile_rows, void* const* codes,
               float* scales, float* offsets)
PARLOR_DECLARE(void, stage_float, const linear_weight& w, const Input& input, int tile_rows, float* values)
PARLOR_DECLARE(void, normalize_rows, const linear_weight& w, const Input& input, float* out)
// out = silu(gate) * up; silu.cpp. `out` may be `gate`.
PARLOR_DECLARE(void, silu_mul, const float* gate, const float* up, int64_t count, float* out)
PARLOR_DECLARE(LinearKernels, linear_kernels, )
PARLOR_DECLARE(LinearKernels, group_kernels, )  // of weights that are grouped; no dense_rows

#if PARLOR_BUILT_AVX2
PARLOR_DECLARE_IN(avx2, ManyRowKernels, many_row_kernels, )  // of exact and dense weights
PARLOR_DECLARE_IN(avx2, ManyRowKernels, rounded_panels, )    // of rounded ones, panels.cpp
PARLOR_DECLARE_IN(avx2, LinearKernels, group_row_kernels, )     // of groups without a table for one row, with AVX-VNNI too
PARLOR_DECLARE_IN(avx2, LinearKernels, four_bit_row_kernels, )  // of PARLOR_LINEAR_Q4 for one row
PARLOR_DECLARE_IN(avx2, void, stage_planes, const linear_weight& w, const Input& input, int tile_rows, void* const* codes,
                  float* scales, float* offsets)  // as row_avx2.cpp has them
#endif
#if PARLOR_BUILT_AVX512
PARLOR_DECLARE_IN(avx512, ManyRowKernels, rounded_panels, )
#endif
#if PARLOR_BUILT_AVX_VNNI  // the sources of AVX2 once more; rows are staged as for AVX2
PARLOR_DECLARE_IN(avx_vnni, ManyRowKernels, rounded_panels, )
PARLOR_DECLARE_IN(avx_vnni, LinearKernels, linear_kernels, )
PARLOR_DECLARE_IN(avx_vnni, LinearKernels, group_kernels, )
PARLOR_DECLARE_IN(avx_vnni, ManyRowKernels, many_row_kernels, )
#endif
#if PARLOR_BUILT_DOTPROD
PARLOR_DECLARE_IN(dotprod, LinearKernels, linear_kernels, )
PARLOR_DECLARE_IN(dotprod, LinearKernels, group_kernels, )
PARLOR_DECLARE_IN(dotprod, void, stage_rounded, const linear_weight& w, const Input& input, int tile_rows,
                  void* const* codes, float* scales, float* offsets)
#endif
#if PARLOR_BUILT_I8MM  // the sources of dot products once more
PARLOR_DECLARE_IN(i8mm, LinearKernels, linear_kernels, )
PARLOR_DECLARE_IN(i8mm, LinearKernels, group_kernels, )
PARLOR_DECLARE_IN(i8mm, void, stage_rounded, const linear_weight& w, const Input& input, int tile_rows,
                  void* const* codes, float* scales, float* offsets)
#endif
#if PARLOR_BUILT_AMX
PARLOR_DECLARE_IN(amx, ManyRowKernels, many_row_kernels, )
PARLOR_DECLARE_IN(amx, LinearKernels, few_row_kernels, )    // few_amx.cpp
PARLOR_DECLARE_IN(amx, LinearKernels, few_group_kernels, )  // few_groups_amx.cpp
#endif
