// The linear layer for many rows with AMX int8 tiles.
//
// Bound by the tile unit (a product of 16 x 64 by 64 x 16 codes takes 16 cycles, and there are two planes of x) and, with
// groups of 64, as much by what follows each block: 16 x 16 integers are read back, scaled and added in float32, and
// vector instructions get but one port while the tile unit works. So codes are unpacked once for all rows into a panel in the first-level
// cache, a span's sums stay in registers, and a product is read back two blocks after it was begun.
#include "avx512.h"
#include "tiles.h"

namespace parlor {
namespace amx {
namespace {

constexpr int64_t kPanelRowBlocks = 3;  // row blocks unpacked together; each tile of x is read once for all of them
constexpr int64_t kMaxSteps = 2 * kSpanColumns / kColumnUnit;  // of a span and row block
constexpr int64_t kPanel = 2 * kSpanColumns * kLanes;          // bytes of a span and row block: 4-bit codes lie there twice
constexpr int kTileRows = 16;
constexpr int64_t kTileFloats = kTileRows * kLanes;

// Tiles of the unit: 0 to 3 products; 4, 5 x and codes of 64 columns; 6, 7 the same of 32 columns.
void configure_int8_tiles() {
    TileConfig config;
    for (int tile = 0; tile < 6; ++tile) config.set(tile, kTileRows, 64);
    config.set(6, kTileRows, 32);
    config.set(7, 8, 64);
    config.load();
}

// How zero points enter. kInCodes: codes are unpacked as code - zero, and that times 16 fits a byte. Otherwise codes stay
// unsigned and the tile's offsets are applied to the products, as integers or (with zeros) in float.
enum class Zeros { kInCodes, kAsInteger, kAsFloat };

inline Zeros zeros_of(const linear_weight& w) {
    if (w.zero_kind != PARLOR_ZERO_ONE) return Zeros::kAsFloat;
    return w.zero == (w.kind == PARLOR_LINEAR_Q4 ? 8 : 128) ? Zeros::kInCodes : Zeros::kAsInteger;
}

// What is summed in one product tile: a block of one row block. With 8-bit codes one plane of it: the step of the high
// one is followed by that of the low one, and both are scaled together.
struct Step {
    const int8_t* codes[2];  // to multiply the planes of x with: [length / 4][16 outputs][4 columns], as the tiles take them
    int32_t first_plane, last_plane;
    int32_t length;
    int32_t x_offset;        // of the block within a tile of x, for one row
    int32_t block;
    bool ends_span;
    alignas(64) float scales[kLanes];
    alignas(64) float zeros[kLanes];  // of Zeros::kAsFloat
};

// Unpack the 4-bit codes of a block, times 16 and as they are; `ahead` is the distance to the codes that are wanted next.
void unpack_4_bits(const uint8_t* codes, int length, int64_t ahead, int zero, int8_t* times_16, int8_t* single) {
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i zeros = _mm512_set1_epi8(static_cast<char>(zero));
    const __m512i zeros_times_16 = _mm512_set1_epi8(static_cast<char>(zero * kHighPlane));
    const char* const next = reinterpret_cast<const char*>(codes) + ahead;
    for (int i = 0; i < length * kLanes / 2; i += 64) {
        _mm_prefetch(next + i, _MM_HINT_T1);
        const __m512i line = _mm512_loadu_si512(codes + i);
        const __m512i first = _mm512_andnot_si512(nibble, _mm512_slli_epi32(line, 4));
        const __m512i second = _mm512_andnot_si512(nibble, line);
        _mm512_store_si512(times_16 + 2 * i, _mm512_sub_epi8(first, zeros_times_16));
        _mm512_store_si512(times_16 + 2 * i + 64, _mm512_sub_epi8(second, zeros_times_16));
        _mm512_store_si512(single + 2 * i, _mm512_sub_epi8(_mm512_and_si512(line, nibble), zeros));
        _mm512_store_si512(single + 2 * i + 64, _mm512_sub_epi8(_mm512_srli_epi32(second, 4), zeros));
    }
}

void unpack_8_bits(const uint8_t* codes, int length, int64_t ahead, int zero, int8_t* panel) {
    const __m512i zeros = _mm512_set1_epi8(static_cast<char>(zero));
    const char* const next = reinterpret_cast<const char*>(codes) + ahead;
    for (int i = 0; i < length * kLanes; i += 64) {
        _mm_prefetch(next + i, _MM_HINT_T1);
        _mm512_store_si512(panel + i, _mm512_sub_epi8(_mm512_loadu_si512(codes + i), zeros));
    }
}

void set_factors(const linear_weight& w, int64_t index, Step* step) {
    _mm512_store_ps(step->scales, load_halves(w.scales + index));
    if (zeros_of(w) == Zeros::kAsFloat) _mm512_store_ps(step->zeros, load_zeros(w, index));
}

// Unpack a span of one row block to `panel` and write the steps; returns how many.
int unpack_span(const linear_weight& w, const Span& span, int64_t row_block, int8_t* panel, Step* steps) {
    const Block* const blocks = blocks_of(w);
    const bool is_q4 = w.kind == PARLOR_LINEAR_Q4;
    const int64_t column_bytes = is_q4 ? kLanes / 2 : kLanes;
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w) +
                           span.first_column * column_bytes;
    const int64_t ahead = span.columns * column_bytes;
    const int zero = zeros_of(w) == Zeros::kInCodes ? w.zero : 0;
    int x_offset = span.first_column;
    int num_steps = 0;
    for (int b = span.first_block; b < span.last_block; ++b) {
        const int length = blocks[b].length;
        const int64_t panel_length = length * kLanes;
        const int64_t index = (row_block * w.num_groups + blocks[b].group) * kLanes;
        const bool ends_span = b + 1 == span.last_block;
        Step* const step = steps + num_steps;
        *step = {{panel, panel}, 0, 2, length, x_offset, b, ends_span, {}, {}};
        if (is_q4) {
            step->codes[1] = panel + panel_length;
            unpack_4_bits(codes, length, ahead, zero, panel, panel + panel_length);
            set_factors(w, index, step);
            panel += 2 * panel_length;
            num_steps += 1;
        } else {
            unpack_8_bits(codes, length, ahead, zero, panel);
            step[1] = *step;
            step[0].last_plane = step[1].first_plane = 1;
            step[0].ends_span = false;
            set_factors(w, index, step + 1);
            panel += panel_length;
            num_steps += 2;
        }
        codes += length * column_bytes;
        x_offset += length;
    }
    return num_steps;
}

// The products of a step in a product tile. (The intrinsics are macros that take a tile's digit.)
#define PARLOR_MULTIPLY(digit, product)                                                                  \
    do {                                                                                                 \
        _tile_zero(digit);                                                                               \
        for (int plane = step.first_plane; plane < step.last_plane; ++plane) {                           \
            const int8_t* const x = static_cast<const int8_t*>(tiles[begun.tile].codes[plane]) +         \
                                    static_cast<int64_t>(step.x_offset) * kTileRows;                     \
            int column = 0;                                                                              \
            for (; column + 64 <= step.length; column += 64) {                                           \
                _tile_loadd(4, x + column, step.length);                                                 \
                _tile_loadd(5, step.codes[plane] + column * kLanes, 64);                                 \
                product(digit, 4, 5);                                                                    \
            }                                                                                            \
            if (column < step.length) {                                                                  \
                _tile_loadd(6, x + column, step.length);                                                 \
                _tile_loadd(7, step.codes[plane] + column * kLanes, 64);                                 \
                product(digit, 6, 7);                                                                    \
            }                                                                                            \
        }                                                                                                \
    } while (0)

// Part `phase` of four of the pipeline below: begin item + phase, store the products begun two items ago, scale those
// begun three ago.
#define PARLOR_PIPELINE(phase, store_phase, scale_phase)                                        \
    do {                                                                                        \
        const int64_t now = item + phase;                                                       \
        if (now < num_items) {                                                                  \
            const Step& step = steps[begun.step];                                               \
            if (kZeros == Zeros::kInCodes) PARLOR_MULTIPLY(phase, _tile_dpbssd);                \
            else PARLOR_MULTIPLY(phase, _tile_dpbsud);                                          \
            begun.advance(num_steps);                                                           \
        }                                                                                       \
        if (now >= 2 && now < num_items + 2) _tile_stored(store_phase, products[store_phase], 64); \
        if (now >= 3 && now < num_items + 3) scale(scale_phase);                                \
    } while (0)

// Walks over the steps of one tile after the other.
struct Cursor {
    int64_t tile = 0;
    int step = 0;

    void advance(int num_steps) {
        if (++step == num_steps) step = 0, ++tile;
    }
};

// Add a panel's share to the sums [tile][row block of the panel][16 rows][16 outputs] of all tiles.
template <Zeros kZeros, bool kIsQ8>
void add_panel(const Step* steps, int num_steps, const Tile* tiles, int64_t num_tiles, int64_t span, float* sums) {
    alignas(64) int32_t products[4][kTileFloats];
    __m512 parts[kTileRows];
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) parts[r] = _mm512_setzero_ps();
    Cursor begun, scaled;
    const int64_t num_items = num_tiles * num_steps;

    const auto scale = [&](int phase) __attribute__((always_inline)) {
        const Step& step = steps[scaled.step];
        const Tile& tile = tiles[scaled.tile];
        if (kIsQ8 && step.last_plane == 1) return scaled.advance(num_steps);  // the low plane comes next
        const int32_t* const dots = products[phase];
        const int32_t* const high_dots = products[(phase + 3) % 4];
        const float* const x_offsets = tile.offsets + static_cast<int64_t>(step.block) * kTileRows;
        const __m512 scales = _mm512_load_ps(step.scales);
        const __m512 zeros = kZeros == Zeros::kAsFloat ? _mm512_load_ps(step.zeros) : scales;
#pragma GCC unroll 16
        for (int r = 0; r < kTileRows; ++r) {
            __m512i dot = _mm512_load_si512(dots + r * kLanes);
            if (kIsQ8) dot = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(high_dots + r * kLanes), 4), dot);
            if (kZeros == Zeros::kAsInteger) dot = _mm512_add_epi32(dot, broadcast_word(x_offsets + r));
            __m512 value = _mm512_cvtepi32_ps(dot);
            if (kZeros == Zeros::kAsFloat) value = _mm512_fnmadd_ps(zeros, _mm512_set1_ps(x_offsets[r]), value);
            parts[r] = _mm512_fmadd_ps(value, scales, parts[r]);
        }
        if (step.ends_span) {
            const float* const x_scales = tile.scales + span * kTileRows;
#pragma GCC unroll 16
            for (int r = 0; r < kTileRows; ++r) {
                float* const sum = sums + r * kLanes;
                _mm512_store_ps(sum, _mm512_fmadd_ps(parts[r], _mm512_set1_ps(x_scales[r]), _mm512_load_ps(sum)));
                parts[r] = _mm512_setzero_ps();
            }
            sums += kTileFloats;
        }
        scaled.advance(num_steps);
    };
    for (int64_t item = 0; item < num_items + 3; item += 4) {
        PARLOR_PIPELINE(0, 2, 1);
        PARLOR_PIPELINE(1, 3, 2);
        PARLOR_PIPELINE(2, 0, 3);
        PARLOR_PIPELINE(3, 1, 0);
    }
}

#undef PARLOR_PIPELINE
#undef PARLOR_MULTIPLY

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

int64_t panel_bytes(int64_t rows) {
    return kPanelRowBlocks * (kPanel + kMaxSteps * static_cast<int64_t>(sizeof(Step)) +
                              (rows + kTileRows - 1) / kTileRows * kTileFloats * static_cast<int64_t>(sizeof(float)));
}

template <Zeros kZeros>
auto adder_of(const linear_weight& w) {
    return w.kind == PARLOR_LINEAR_Q4 ? add_panel<kZeros, false> : add_panel<kZeros, true>;
}

void multiply_tiles(const linear_weight& w, const Tile* tiles, int64_t num_tiles, int64_t first, int64_t last,
                    const Output& output, void* memory) {
    int8_t* const panels = static_cast<int8_t*>(memory);
    Step* const steps = reinterpret_cast<Step*>(panels + kPanelRowBlocks * kPanel);
    float* const sums = reinterpret_cast<float*>(steps + kPanelRowBlocks * kMaxSteps);
    const auto add = zeros_of(w) == Zeros::kInCodes ? adder_of<Zeros::kInCodes>(w)
        : zeros_of(w) == Zeros::kAsInteger ? adder_of<Zeros::kAsInteger>(w) : adder_of<Zeros::kAsFloat>(w);
    configure_int8_tiles();
    for (int64_t begin = first; begin < last; begin += kPanelRowBlocks) {
        const int64_t count = last - begin < kPanelRowBlocks ? last - begin : kPanelRowBlocks;
        __builtin_memset(sums, 0, num_tiles * count * kTileFloats * sizeof(float));
        for (int64_t span = 0; span < w.num_spans; ++span) {
            int num_steps = 0;
            for (int64_t i = 0; i < count; ++i)
                num_steps += unpack_span(w, spans_of(w)[span], begin + i, panels + i * kPanel, steps + num_steps);
            keep_memory_order();
            add(steps, num_steps, tiles, num_tiles, span, sums);
        }
        for (int64_t t = 0; t < num_tiles; ++t) {
            for (int64_t i = 0; i < count; ++i)
                store_tile(w, sums + (t * count + i) * kTileFloats, tiles[t].filled, begin + i,
                           output.out + tiles[t].first_row * output.stride, output.stride, output.accumulate);
        }
    }
    _tile_release();
}

}  // namespace

ManyRowKernels many_row_kernels() {
    return {kTileRows, [](int) { return kTileRows; }, kPanelRowBlocks, panel_bytes, multiply_tiles, nullptr, nullptr};
}

}  // namespace amx
}  // namespace parlor
