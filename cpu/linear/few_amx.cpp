// The linear layer for 5..16 rows with AMX int8 tiles: requests that are decoded together.
//
// VNNI takes an operation for each row, plane of x and half a line of codes: 32 a line for eight rows, twice the time that
// the line takes to arrive. The tile unit takes 16 cycles for 64 columns and a plane, whatever the number of rows, so that here
// unpacking (three operations and two stores a line) and scaling (five operations a row and block) bound: 46 ns for 64 columns
// of 16 outputs with 8 rows, 63 with 16, where VNNI takes 76 and 148 and reading the codes 30.
//
// Blocks are items of a pipeline: the products of one are begun, those of the one before are stored and those begun three ago
// scaled, while the codes of the next but one are unpacked; tiles and vectors wait long for what the other has just stored.
// The same integers and the same order of floats as in linear.h.
#include "avx512.h"
#include "tiles.h"

namespace parlor {
namespace amx {
namespace {

constexpr int kMaxRows = 16;
constexpr int64_t kPrefetchBytes = 4096;
constexpr int64_t kTileColumns = 64;
constexpr int64_t kPanel = kSpanColumns * kLanes;  // bytes of a block's codes

// Tiles of the unit: 0 to 3 sums of the high and the low plane, twice; 4 and 6 x and codes of 64 columns; 5 and 7 of 32.
void configure_few_tiles(int rows) {
    TileConfig config;
    for (int tile = 0; tile < 5; ++tile) config.set(tile, rows, 64);
    config.set(5, rows, 32);
    config.set(6, 16, 64);
    config.set(7, 8, 64);
    config.load();
}

// A block of a row block.
struct Item {
    int64_t row_block;
    int64_t block = 0;
    int64_t span = 0;
    int64_t column = 0;  // as stored, of the block's first

    void advance(const linear_weight& w) {
        column += blocks_of(w)[block].length;
        if (++block == spans_of(w)[span].last_block) ++span;
        if (block < w.num_blocks) return;
        ++row_block;
        block = span = column = 0;
    }
};

// The codes of a block as tiles take them, [length / 4][16 outputs][4 columns]: as they lie there, or unpacked to `panel`.
template <int kBits>
const uint8_t* codes_of(const linear_weight& w, const Item& item, uint8_t* panel) {
    const int64_t length = blocks_of(w)[item.block].length;
    const uint8_t* const codes = static_cast<const uint8_t*>(w.codes) + item.row_block * row_block_bytes(w) +
                                 item.column * kLanes * kBits / 8;
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int64_t i = 0; i < length * kLanes * kBits / 8; i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(codes) + i + kPrefetchBytes, _MM_HINT_T1);
        if (kBits == 8) continue;
        const __m512i line = _mm512_loadu_si512(codes + i);
        _mm512_store_si512(panel + 2 * i, _mm512_and_si512(line, nibble));
        _mm512_store_si512(panel + 2 * i + 64, _mm512_and_si512(_mm512_srli_epi32(line, 4), nibble));
    }
    return kBits == 8 ? codes : panel;
}

// Both planes of x with a block's codes, unsigned. (The intrinsics are macros that take a tile's digit.)
#define PARLOR_MULTIPLY(high_sums, low_sums, high, low, codes, length)             \
    do {                                                                           \
        _tile_zero(high_sums);                                                     \
        _tile_zero(low_sums);                                                      \
        int64_t column = 0;                                                        \
        for (; column + kTileColumns <= length; column += kTileColumns) {          \
            _tile_loadd(6, codes + column * kLanes, 64);                           \
            _tile_loadd(4, high + column, length);                                 \
            _tile_dpbsud(high_sums, 4, 6);                                         \
            _tile_loadd(4, low + column, length);                                  \
            _tile_dpbsud(low_sums, 4, 6);                                          \
        }                                                                          \
        if (column < length) {                                                     \
            _tile_loadd(7, codes + column * kLanes, 64);                           \
            _tile_loadd(5, high + column, length);                                 \
            _tile_dpbsud(high_sums, 5, 7);                                         \
            _tile_loadd(5, low + column, length);                                  \
            _tile_dpbsud(low_sums, 5, 7);                                          \
        }                                                                          \
    } while (0)

template <int kRows, int kBits, bool kOneZero>
class FewRows {
  public:
    FewRows(const linear_weight& w, const Tile& tile, int64_t first, const Output& output)
        : w_(w), tile_(tile), output_(output), unpacked_{first}, begun_{first}, scaled_{first} {
        for (__m512& part : parts_) part = _mm512_setzero_ps();
        for (__m512& sum : sums_) sum = _mm512_setzero_ps();
    }

    void run(int64_t last) {
        const int64_t num_items = (last - unpacked_.row_block) * w_.num_blocks;
        unpack();
        if (num_items > 1) unpack();
        for (int64_t item = 0; item < num_items + 3; item += 4) {
            step<0>(item, num_items);
            step<1>(item + 1, num_items);
            step<2>(item + 2, num_items);
            step<3>(item + 3, num_items);
        }
    }

  private:
    template <int kPhase>
    __attribute__((always_inline)) void step(int64_t item, int64_t num_items) {
        int32_t* const stored = products_[(kPhase + 3) % 4];
        if (item + 2 < num_items) unpack();
        if (item < num_items) {
            const int64_t length = blocks_of(w_)[begun_.block].length, place = begun_.column * kRows;
            const int8_t* const high = static_cast<const int8_t*>(tile_.codes[0]) + place;
            const int8_t* const low = static_cast<const int8_t*>(tile_.codes[1]) + place;
            const uint8_t* const codes = codes_[kPhase];
            if (kPhase % 2 == 0) PARLOR_MULTIPLY(0, 1, high, low, codes, length);
            else PARLOR_MULTIPLY(2, 3, high, low, codes, length);
            begun_.advance(w_);
        }
        keep_memory_order();
        if (item >= 3 && item < num_items + 3) scale(products_[(kPhase + 1) % 4]);
        keep_memory_order();
        if (item < 1 || item > num_items) return;
        if (kPhase % 2 == 0) {
            _tile_stored(2, stored, 64);
            _tile_stored(3, stored + kRows * kLanes, 64);
        } else {
            _tile_stored(0, stored, 64);
            _tile_stored(1, stored + kRows * kLanes, 64);
        }
    }

    __attribute__((always_inline)) void unpack() {
        codes_[side_] = codes_of<kBits>(w_, unpacked_, panels_[side_]);
        unpacked_.advance(w_);
        side_ = (side_ + 1) % 4;
        keep_memory_order();
    }

    __attribute__((always_inline)) void scale(const int32_t* products) {
        const int64_t index = (scaled_.row_block * w_.num_groups + blocks_of(w_)[scaled_.block].group) * kLanes;
        const float* const offsets = tile_.offsets + scaled_.block * kRows;
        const __m512 scales = load_halves(w_.scales + index), zeros = kOneZero ? scales : load_zeros(w_, index);
        const bool ends_span = scaled_.block + 1 == spans_of(w_)[scaled_.span].last_block;
        const float* const x_scales = tile_.scales + scaled_.span * kRows;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            const __m512i high = _mm512_load_si512(products + r * kLanes);
            __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(high, 4), _mm512_load_si512(products + (kRows + r) * kLanes));
            if (kOneZero) dot = _mm512_add_epi32(dot, broadcast_word(offsets + r));
            __m512 value = _mm512_cvtepi32_ps(dot);
            if (!kOneZero) value = _mm512_fnmadd_ps(zeros, _mm512_set1_ps(offsets[r]), value);
            parts_[r] = _mm512_fmadd_ps(value, scales, parts_[r]);
        }
        const int64_t row_block = scaled_.row_block;
        scaled_.advance(w_);
        if (!ends_span) return;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            sums_[r] = _mm512_fmadd_ps(parts_[r], _mm512_set1_ps(x_scales[r]), sums_[r]);
            parts_[r] = _mm512_setzero_ps();
        }
        if (scaled_.row_block == row_block) return;
        for (int r = 0; r < kRows; ++r) {
            if (r < output_.rows) store(w_, sums_[r], row_block, output_, r);
            sums_[r] = _mm512_setzero_ps();
        }
    }

    const linear_weight& w_;
    const Tile& tile_;
    const Output& output_;
    Item unpacked_, begun_, scaled_;
    int side_ = 0;
    const uint8_t* codes_[4] = {};
    __m512 parts_[kRows], sums_[kRows];
    alignas(64) int32_t products_[4][2 * kRows * kLanes];  // [high, low][rows][16 outputs]
    alignas(64) uint8_t panels_[4][kBits == 4 ? kPanel : 64];
};

#undef PARLOR_MULTIPLY

template <int kRows, int kBits>
void multiply_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    if (w.zero_kind == PARLOR_ZERO_ONE) FewRows<kRows, kBits, true>(w, tile, first, output).run(last);
    else FewRows<kRows, kBits, false>(w, tile, first, output).run(last);
}

int tile_rows(int rows) { return rows <= 8 ? 8 : 16; }

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    configure_few_tiles(tile.rows);
    const bool is_q4 = w.kind == PARLOR_LINEAR_Q4;
    const auto multiply = tile.rows == 8 ? (is_q4 ? multiply_rows<8, 4> : multiply_rows<8, 8>)
                                         : (is_q4 ? multiply_rows<16, 4> : multiply_rows<16, 8>);
    if (first < last) multiply(w, tile, first, last, output);
    _tile_release();
}

}  // namespace

LinearKernels few_row_kernels() { return {kMaxRows, tile_rows, rounded_rows, nullptr, nullptr}; }

}  // namespace amx
}  // namespace parlor
