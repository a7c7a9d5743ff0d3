// The linear layer for many rows with AMX int8 tiles.
//
// Bound by the tile unit (one product of 16 x 64 by 64 x 16 codes in 16 cycles) and, with groups of 64, just as much by
// what follows each block: 16 x 16 integers are read back, scaled and added in float32. So codes are unpacked once
// for all rows into a panel in the second-level cache, sums of a 16 x 16 tile stay in registers over a run of blocks,
// and the products of the next block are under way while the integers of the last one are scaled.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers: registers left undefined on purpose
#endif
#include <immintrin.h>

#include "linear.h"

namespace parlor {
namespace amx {
namespace {

constexpr int64_t kPanelRowBlocks = 4;   // row blocks unpacked together; each tile of x is read once for all of them
constexpr int64_t kPanelColumns = 512;   // columns unpacked together: 4 * 16 * 512 bytes fit the first-level cache
constexpr int kTileRows = 16;
constexpr int64_t kTileFloats = kTileRows * kLanes;

// Tiles of the unit: 0, 1 products; 2, 3 x and codes of 64 columns; 4, 5 the same of 32 columns.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int num_rows, int bytes) {
        rows[tile] = static_cast<uint8_t>(num_rows);
        row_bytes[tile] = static_cast<uint16_t>(bytes);
    }
};

void configure_tiles() {
    TileConfig config;
    config.set(0, kTileRows, 64);
    config.set(1, kTileRows, 64);
    config.set(2, kTileRows, 64);
    config.set(3, 16, 64);
    config.set(4, kTileRows, 32);
    config.set(5, 8, 64);
    // gcc 12 takes _tile_loadconfig for a read of 8 bytes and drops the other stores; this makes it keep them.
    asm volatile("" ::"m"(config) : "memory");
    _tile_loadconfig(&config);
}

inline __m512 load_halves(const uint16_t* source) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}

inline __m512i broadcast_bits(const float* x) {
    int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return _mm512_set1_epi32(word);
}

// How zero points enter. kInCodes: codes are unpacked as code - zero, which fits a byte. Otherwise codes stay unsigned
// and the tile's offsets are applied to the products, as integers or (with zeros) in float.
enum class Zeros { kInCodes, kAsInteger, kAsFloat };

inline Zeros zeros_of(const linear_weight& w) {
    if (w.zero_kind == PARLOR_ZERO_F16) return Zeros::kAsFloat;
    if (w.kind == PARLOR_LINEAR_Q4) return Zeros::kInCodes;
    if (w.zero_kind == PARLOR_ZERO_U8) return Zeros::kAsFloat;
    return w.zero == 128 ? Zeros::kInCodes : Zeros::kAsInteger;
}

inline __m512 load_zeros(const linear_weight& w, int64_t index) {
    if (w.zero_kind == PARLOR_ZERO_F16) return load_halves(static_cast<const uint16_t*>(w.zeros) + index);
    const uint8_t* bytes = static_cast<const uint8_t*>(w.zeros) + index;
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}

// Each output's zero point in all four bytes of its lane.
inline __m512i zero_bytes(const linear_weight& w, int64_t index) {
    if (w.zero_kind == PARLOR_ZERO_ONE) return _mm512_set1_epi8(static_cast<char>(w.zero));
    const uint8_t* bytes = static_cast<const uint8_t*>(w.zeros) + index;
    const __m512i lanes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    const __m512i spread = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
    return _mm512_shuffle_epi8(lanes, spread);
}

// Codes of one block of a row block -> bytes as the tiles take them: [length / 4][16 outputs][4 columns].
void unpack_block(const linear_weight& w, const uint8_t* codes, int length, __m512i zeros, int8_t* panel) {
    const __m512i nibble = _mm512_set1_epi8(15);
    if (w.kind == PARLOR_LINEAR_Q8) {
        for (int i = 0; i < length * kLanes; i += 64)
            _mm512_store_si512(panel + i, _mm512_sub_epi8(_mm512_loadu_si512(codes + i), zeros));
        return;
    }
    for (int i = 0; i < length * kLanes / 2; i += 64) {
        const __m512i line = _mm512_loadu_si512(codes + i);
        const __m512i low = _mm512_and_si512(line, nibble);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi32(line, 4), nibble);
        _mm512_store_si512(panel + 2 * i, _mm512_sub_epi8(low, zeros));
        _mm512_store_si512(panel + 2 * i + 64, _mm512_sub_epi8(high, zeros));
    }
}

// Products of one block into the integers at `products`, by way of product tile 0 or 1. (The intrinsics are macros
// that take the digit of a tile, so the tile cannot be a template argument.)
#define PARLOR_MULTIPLY(tile, product)                                  \
    do {                                                                \
        _tile_zero(tile);                                               \
        int column = 0;                                                 \
        for (; column + 64 <= length; column += 64) {                   \
            _tile_loadd(2, x + column, length);                         \
            _tile_loadd(3, panel + column * kLanes, 64);                \
            product(tile, 2, 3);                                        \
        }                                                               \
        if (column < length) {                                          \
            _tile_loadd(4, x + column, length);                         \
            _tile_loadd(5, panel + column * kLanes, 64);                \
            product(tile, 4, 5);                                        \
        }                                                               \
        _tile_stored(tile, products, 64);                               \
    } while (0)

template <bool kSigned>
inline void multiply_block(bool second, const int8_t* x, const int8_t* panel, int length, int32_t* products) {
    if (kSigned) {
        if (second) PARLOR_MULTIPLY(1, _tile_dpbssd);
        else PARLOR_MULTIPLY(0, _tile_dpbssd);
    } else {
        if (second) PARLOR_MULTIPLY(1, _tile_dpbsud);
        else PARLOR_MULTIPLY(0, _tile_dpbsud);
    }
}

#undef PARLOR_MULTIPLY

// The run of blocks that a panel holds.
struct Run {
    int64_t first_block, last_block;
    int64_t first_column;  // as stored
};

// Add the blocks of a run to the sums of one tile: 16 rows by the 16 outputs of a row block.
template <Zeros kZeros>
void add_run(const linear_weight& w, const Tile& tile, const Run& run, int64_t row_block, const int8_t* panel,
             float* sums_in_memory) {
    alignas(64) int32_t products[2][kTileFloats];
    const Block* const blocks = blocks_of(w);
    const int64_t group_index = row_block * w.num_groups * kLanes;
    const int8_t* x = static_cast<const int8_t*>(tile.codes) + run.first_column * kTileRows;
    __m512 sums[kTileRows];
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) sums[r] = _mm512_load_ps(sums_in_memory + r * kLanes);

    const auto multiply = [&](int64_t b) {
        const int length = blocks[b].length;
        multiply_block<kZeros == Zeros::kInCodes>(b % 2, x, panel, length, products[b % 2]);
        x += length * kTileRows;
        panel += length * kLanes;
    };
    multiply(run.first_block);
    for (int64_t b = run.first_block; b < run.last_block; ++b) {
        if (b + 1 < run.last_block) multiply(b + 1);
        const int64_t index = group_index + blocks[b].group * kLanes;
        const __m512 scales = load_halves(w.scales + index);
        const __m512 zeros = kZeros == Zeros::kAsFloat ? load_zeros(w, index) : scales;
        const float* const x_scales = tile.scales + b * kTileRows;
        const float* const x_offsets = tile.offsets + b * kTileRows;
        const int32_t* const dots = products[b % 2];
#pragma GCC unroll 16
        for (int r = 0; r < kTileRows; ++r) {
            __m512i dot = _mm512_load_si512(dots + r * kLanes);
            if (kZeros == Zeros::kAsInteger) dot = _mm512_add_epi32(dot, broadcast_bits(x_offsets + r));
            __m512 value = _mm512_cvtepi32_ps(dot);
            if (kZeros == Zeros::kAsFloat) value = _mm512_fnmadd_ps(zeros, _mm512_set1_ps(x_offsets[r]), value);
            sums[r] = _mm512_fmadd_ps(value, _mm512_mul_ps(scales, _mm512_set1_ps(x_scales[r])), sums[r]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) _mm512_store_ps(sums_in_memory + r * kLanes, sums[r]);
}

void store_tile(const linear_weight& w, const float* sums, int64_t rows, int64_t row_block, float* out, int64_t stride,
                bool accumulate) {
    const int64_t first = row_block * kLanes;
    const int64_t left = w.n - first;
    const __mmask16 mask = left >= kLanes ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
    const __m512 bias = w.bias ? _mm512_maskz_loadu_ps(mask, w.bias + first) : _mm512_setzero_ps();
    for (int64_t r = 0; r < rows; ++r) {
        __m512 sum = _mm512_load_ps(sums + r * kLanes);
        float* const target = out + r * stride + first;
        if (w.bias) sum = _mm512_add_ps(sum, bias);
        if (accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, target), sum);
        _mm512_mask_storeu_ps(target, mask, sum);
    }
}

// The run that begins at `block`: as many blocks as fit kPanelColumns, at least one.
Run run_from(const linear_weight& w, int64_t block, int64_t first_column) {
    const Block* const blocks = blocks_of(w);
    int64_t last = block, columns = 0;
    while (last < w.num_blocks && columns + blocks[last].length <= kPanelColumns) columns += blocks[last++].length;
    return {block, last, first_column};
}

int64_t unpack_run(const linear_weight& w, const Run& run, int64_t row_block, int8_t* panel) {
    const Block* const blocks = blocks_of(w);
    const int64_t bits = w.kind == PARLOR_LINEAR_Q4 ? 4 : 8;
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w);
    int64_t column = run.first_column;
    for (int64_t b = run.first_block; b < run.last_block; ++b) {
        const int64_t index = (row_block * w.num_groups + blocks[b].group) * kLanes;
        const __m512i zeros = zeros_of(w) == Zeros::kInCodes ? zero_bytes(w, index) : _mm512_setzero_si512();
        unpack_block(w, codes + column * kLanes * bits / 8, blocks[b].length, zeros, panel);
        panel += blocks[b].length * kLanes;
        column += blocks[b].length;
    }
    return column;
}

}  // namespace

int64_t panel_bytes(const linear_weight&, int64_t num_tiles) {
    return kPanelRowBlocks * (kPanelColumns * kLanes + num_tiles * kTileFloats * static_cast<int64_t>(sizeof(float)));
}

void int8_many(const linear_weight& w, const Tile* tiles, int64_t num_tiles, int64_t rows, int64_t first, int64_t last,
               const Output& output, void* memory) {
    int8_t* const panels = static_cast<int8_t*>(memory);
    float* const sums = reinterpret_cast<float*>(panels + kPanelRowBlocks * kPanelColumns * kLanes);
    const auto add = zeros_of(w) == Zeros::kInCodes ? add_run<Zeros::kInCodes>
        : zeros_of(w) == Zeros::kAsInteger ? add_run<Zeros::kAsInteger> : add_run<Zeros::kAsFloat>;
    configure_tiles();
    for (int64_t begin = first; begin < last; begin += kPanelRowBlocks) {
        const int64_t count = last - begin < kPanelRowBlocks ? last - begin : kPanelRowBlocks;
        __builtin_memset(sums, 0, num_tiles * count * kTileFloats * sizeof(float));
        int64_t column = 0;
        for (int64_t block = 0; block < w.num_blocks;) {
            const Run run = run_from(w, block, column);
            for (int64_t i = 0; i < count; ++i) column = unpack_run(w, run, begin + i, panels + i * kPanelColumns * kLanes);
            asm volatile("" ::: "memory");  // gcc's tile loads do not say that they read memory
            for (int64_t t = 0; t < num_tiles; ++t) {
                for (int64_t i = 0; i < count; ++i)
                    add(w, tiles[t], run, begin + i, panels + i * kPanelColumns * kLanes, sums + (t * count + i) * kTileFloats);
            }
            block = run.last_block;
        }
        for (int64_t t = 0; t < num_tiles; ++t) {
            const int64_t left = rows - t * kTileRows;
            for (int64_t i = 0; i < count; ++i)
                store_tile(w, sums + (t * count + i) * kTileFloats, left < kTileRows ? left : kTileRows, begin + i,
                           output.out + t * kTileRows * output.stride, output.stride, output.accumulate);
        }
    }
    _tile_release();
}

}  // namespace amx
}  // namespace parlor
