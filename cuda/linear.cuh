// The packed weight of a linear layer on the GPU, and how activations become halfs.
//
// Packed layout of the quantized kinds. Outputs are taken 16 at a time (a tile), columns 32 at a time (a unit, always of
// one group: groups are filled up with zeros to whole units) and 64 at a time (a step: two units). Short tiles and the
// last step are filled up with zeros too.
//   codes    [tiles][steps][32 lanes][16 bytes]      4-bit: what a lane needs for a step, in one load
//            [tiles][steps][2 units][32 lanes][16 bytes]   8-bit
//   scales   [tiles][groups][8][2] float16           of the outputs g and g + 8
//   zeros    [tiles][groups][8][2]                   bytes or float16 by zero_kind
//   columns  [padded_k] int32                        the column of x that a column is multiplied by, -1 for none;
//                                                    only where the two differ (act-order, odd group sizes)
// The tile is the A of mma.m16n8k16 and the activations are B, so 1 to 8 rows cost the same. Which columns of a step
// belong to one mma is ours to choose: lane (g, t) = (lane / 4, lane % 4) has the columns 32 h + 8 t + 4 i + {0 .. 3} of
// unit h for product i, so that it reads 8 neighbouring activations with one load. Its word of product i of unit h:
//   bits 4 p and 4 p + 16 are two neighbouring columns of output g (p = 0, 2) or g + 8 (p = 1, 3), from column
//   0 (p = 0, 1) or 2 (p = 2, 3) on.  8-bit: two words, pairs 8 bits and 16 bits apart in the same way.
// A dense weight is a copy of the checkpoint's, [n, k].
//
// Fields of linear_weight: padded_k = 64 * steps, num_blocks = steps, num_spans = tiles, blocks = columns or null.
//
// Activations are multiplied by a power of two that brings the largest of a row to 2^13 .. 2^14, and rounded to float16;
// with `exact`, what rounding took away is a second row. Products are summed in float32 per unit and then scaled.
#pragma once

#include "launch.cuh"

namespace parlor {

constexpr int kTile = 16;
constexpr int kUnit = 32;
constexpr int kStep = 64;

// A weight as kernels take it. A quantized one unless said otherwise.
struct Weight {
    const void* codes;
    const half2* scales;
    const void* zeros;
    const int32_t* columns;
    const float* bias;
    int64_t n, k;
    int steps, tiles, groups, units_per_group;
    uint32_t group_magic;  // unit * group_magic / 2^32 = unit / units_per_group
    int zero_kind, zero;

    __device__ int group_of(int unit) const {
        const int group = units_per_group == 1 ? unit : static_cast<int>(__umulhi(unit, group_magic));
        return group < groups ? group : groups - 1;  // behind the last group there are zeros only
    }
};

// Rows of activations before a product; `norm` may be null.
struct Activations {
    const float* x;
    int64_t stride;
    const float* norm;
    float eps;
};

inline bool is_quantized(const linear_weight& w) { return w.kind == PARLOR_LINEAR_Q4 || w.kind == PARLOR_LINEAR_Q8; }

inline Weight weight_of(const linear_weight& w) {
    const int units = static_cast<int>(is_quantized(w) ? divide_up(w.group_size, kUnit) : 1);
    return {w.codes, reinterpret_cast<const half2*>(w.scales), w.zeros, static_cast<const int32_t*>(w.blocks), w.bias,
            w.n, w.k, static_cast<int>(w.num_blocks), static_cast<int>(w.num_spans), static_cast<int>(w.num_groups),
            units, static_cast<uint32_t>((uint64_t{1} << 32) / units + 1), w.zero_kind, w.zero};
}

int check_weight(const linear_weight* weight);

struct RowScale {
    float up;      // what activations are multiplied by: a power of two
    float factor;  // what products are multiplied by: 1 / up, and 1 / root mean square with a norm
};

__device__ __forceinline__ RowScale row_scale(float largest, float squares, const Activations& a, int64_t k) {
    constexpr int kHighest = 13;
    const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
    const int up = exponent == 128 ? 0 : exponent < kHighest - 126 ? 126 : kHighest - exponent;
    RowScale scale;
    scale.up = __uint_as_float(static_cast<uint32_t>(up + 127) << 23);
    scale.factor = __uint_as_float(static_cast<uint32_t>(127 - up) << 23);
    if (a.norm) scale.factor *= 1.0f / sqrtf(squares / static_cast<float>(k) + a.eps);
    return scale;
}

// The scale of one row, in every thread of the block. `partial` holds two values for each warp.
__device__ __forceinline__ RowScale measure_row(const Activations& a, int64_t row, int64_t k, float* partial) {
    const float* const x = a.x + row * a.stride;
    float largest = 0.0f, squares = 0.0f;
    for (int64_t i = threadIdx.x; i < k; i += blockDim.x) {
        squares += x[i] * x[i];
        largest = fmaxf(largest, fabsf(a.norm ? x[i] * a.norm[i] : x[i]));
    }
    largest = warp_max(largest);
    squares = warp_sum(squares);
    const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
    if (threadIdx.x % 32 == 0) partial[warp] = largest, partial[warps + warp] = squares;
    __syncthreads();
    largest = squares = 0.0f;
    for (int i = 0; i < warps; ++i) largest = fmaxf(largest, partial[i]), squares += partial[warps + i];
    __syncthreads();
    return row_scale(largest, squares, a, k);
}

// Column c of a row, as packed and before rounding.
__device__ __forceinline__ float activation(const Activations& a, const Weight& w, const float* x, int64_t c, float up) {
    const int64_t source = w.columns ? w.columns[c] : c < w.k ? c : -1;
    if (source < 0) return 0.0f;
    return (a.norm ? x[source] * a.norm[source] : x[source]) * up;
}

__device__ __forceinline__ uint32_t pair_bits(float a, float b) {
    const half2 pair = __floats2half2_rn(a, b);
    return static_cast<uint32_t>(__half_as_ushort(__low2half(pair))) |
           static_cast<uint32_t>(__half_as_ushort(__high2half(pair))) << 16;
}
// The rest that rounding to float16 leaves.
__device__ __forceinline__ float rest(float value) { return value - __half2float(__float2half_rn(value)); }

__device__ __forceinline__ half2 as_half2(uint32_t bits) {
    return __halves2half2(__ushort_as_half(static_cast<unsigned short>(bits)),
                          __ushort_as_half(static_cast<unsigned short>(bits >> 16)));
}
__device__ __forceinline__ uint32_t as_bits(half2 pair) {
    return static_cast<uint32_t>(__half_as_ushort(__low2half(pair))) |
           static_cast<uint32_t>(__half_as_ushort(__high2half(pair))) << 16;
}

// The zero points of the outputs g and g + 8, as the fragments need them; see fragment().
struct Zeros {
    half2 low;   // 1024 + zero of g
    half2 high;  // 4-bit: -64 - zero of g + 8; 8-bit: 1024 + zero of g + 8
};

template <int kBits>
__device__ __forceinline__ Zeros make_zeros(uint32_t zero_g, uint32_t zero_g8) {
    // 0x6400 is 1024 in float16; the next integers follow, one by one.
    Zeros z;
    z.low = __half2half2(__ushort_as_half(static_cast<unsigned short>(0x6400u + zero_g)));
    const half2 above = __half2half2(__ushort_as_half(static_cast<unsigned short>(0x6400u + zero_g8)));
    z.high = kBits == 4 ? __hsub2(__float2half2_rn(960.0f), above) : above;
    return z;
}

// One word of four pairs (4 bits), or two words of two pairs each (8 bits), as the A of an mma: code - zero, exactly.
__device__ __forceinline__ void fragment(uint32_t word, const Zeros& zeros, uint32_t (&a)[4]) {
    // A nibble or-ed into 1024 is 1024 + q in the low place and 1024 + 16 q in the high one: (1024 + 16 q) / 16 - 64 - z.
    const half2 sixteenth = __float2half2_rn(0.0625f);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        a[2 * i] = as_bits(__hsub2(as_half2((word & 0x000f000fu) | 0x64006400u), zeros.low));
        a[2 * i + 1] = as_bits(__hfma2(as_half2((word & 0x00f000f0u) | 0x64006400u), sixteenth, zeros.high));
        word >>= 8;
    }
}
__device__ __forceinline__ void fragment(uint32_t first, uint32_t second, const Zeros& zeros, uint32_t (&a)[4]) {
    a[0] = as_bits(__hsub2(as_half2((first & 0x00ff00ffu) | 0x64006400u), zeros.low));
    a[1] = as_bits(__hsub2(as_half2((first >> 8 & 0x00ff00ffu) | 0x64006400u), zeros.high));
    a[2] = as_bits(__hsub2(as_half2((second & 0x00ff00ffu) | 0x64006400u), zeros.low));
    a[3] = as_bits(__hsub2(as_half2((second >> 8 & 0x00ff00ffu) | 0x64006400u), zeros.high));
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// What becomes of one value y of a product; gate is that of SILU_MUL.
__device__ __forceinline__ void finish(float* out, int epilogue, float y, float gate) {
    switch (epilogue) {
        case PARLOR_EPILOGUE_ADD: *out += y; break;
        case PARLOR_EPILOGUE_SILU_MUL: *out = silu(gate) * y; break;
        case PARLOR_EPILOGUE_GATE: *out = silu(*out) * y; break;
        default: *out = y;
    }
}

}  // namespace parlor
