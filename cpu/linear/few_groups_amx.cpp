// Weights in groups of 32 columns for 9..16 rows with AMX int8 tiles: requests that are decoded together.
//
// As few_amx.cpp, but a product is of one group: a tile of the weight has 8 rows. Bound by what each row and group takes to store
// its products and to scale them, six operations; VNNI takes 21 in all, but no memory in between. Measured beside it (1 MiB and more
// of codes, CPU time of one thread): 16 rows 1.2 to 1.3 times as fast, 8 rows the same; groups of 16 columns would be slower.
//
// Units of columns are items of a pipeline: the products of one are begun and stored, those begun two ago are scaled, and the
// codes of the next are unpacked. The same integers and the same order of floats as in groups.h.
#include "groups_avx512.h"
#include "tiles.h"

namespace parlor {
namespace amx {
namespace {

constexpr int kMaxRows = 16;
constexpr int64_t kPrefetchBytes = 4096;
constexpr int kQuads = kGroupUnit / 4;  // of a unit: lines of codes, four columns of 16 outputs each
constexpr int kDepth = 4;               // units on their way

// Tiles of the unit: 0 and 1 sums of the high and the low plane of x, which are 4 and 5; 6 codes.
void configure_group_tiles(int rows) {
    TileConfig config;
    for (int tile = 0; tile < 2; ++tile) config.set(tile, rows, 64);
    for (int tile = 4; tile < 6; ++tile) config.set(tile, rows, kGroupUnit);
    config.set(6, kQuads, 64);
    config.load();
}

// Codes of a unit as tiles take them, [quad][16 outputs][4 columns], of T4 what the table holds.
template <int kKind>
inline void unpack_unit(const uint8_t* lines, __m512i table, uint8_t* panel) {
    const __m512i nibble = _mm512_set1_epi8(15);
    const uint8_t* const pairs = lines + (has_nibbles(kKind) ? 4 * 64 : 0);
    const uint8_t* const bits = pairs + (has_pairs(kKind) ? 2 * 64 : 0);
#pragma GCC unroll 8
    for (int q = 0; q < kQuads; ++q) {
        __m512i code = _mm512_setzero_si512();
        if (has_nibbles(kKind)) {
            const __m512i line = _mm512_loadu_si512(lines + q / 2 * 64);
            code = _mm512_and_si512(q % 2 ? _mm512_srli_epi32(line, 4) : line, nibble);
            if (kKind == PARLOR_LINEAR_T4) code = _mm512_shuffle_epi8(table, code);
        }
        if (has_pairs(kKind)) {
            const int to = kKind == PARLOR_LINEAR_G6 ? 4 : 0, from = q % 4 * 2;
            const __m512i line = _mm512_loadu_si512(pairs + q / 4 * 64);
            const __m512i moved = to > from ? _mm512_slli_epi32(line, to > from ? to - from : 0)
                                            : _mm512_srli_epi32(line, to > from ? 0 : from - to);
            code = _mm512_or_si512(code, _mm512_and_si512(moved, _mm512_set1_epi8(static_cast<char>(3 << to))));
        }
        if (has_bits(kKind)) {
            const int to = kKind == PARLOR_LINEAR_G5 ? 4 : 2;
            const __m512i line = _mm512_loadu_si512(bits);
            const __m512i moved = to > q ? _mm512_slli_epi32(line, to > q ? to - q : 0)
                                         : _mm512_srli_epi32(line, to > q ? 0 : q - to);
            code = _mm512_or_si512(code, _mm512_and_si512(moved, _mm512_set1_epi8(static_cast<char>(1 << to))));
        }
        _mm512_store_si512(panel + q * 64, code);
    }
}

template <int kKind, int kScale, bool kMins>
struct Form {
    static constexpr int kWeight = kKind;
    static constexpr bool kHasMins = kMins, kTwoLevels = kScale == PARLOR_SCALE_STEPS;

    static __m512 scales(const GroupStream& stream, int64_t group) { return load_scales<kScale>(stream, group); }
    static __m512 mins(const GroupStream& stream, int64_t group) { return load_mins(kTwoLevels, stream, group); }
};

template <int kRows, class Form>
class FewGroups {
  public:
    FewGroups(const linear_weight& w, const Tile& tile, const Output& output)
        : w_(w), tile_(tile), output_(output), units_(w.k / kGroupUnit) {
        table_ = load_table(w, 0);
        for (int r = 0; r < kRows; ++r) parts_[r] = least_[r] = sums_[r] = _mm512_setzero_ps();
    }

    void run(int64_t first, int64_t last) {
        const int64_t items = (last - first) * units_;
        unpacked_ = scaled_ = {first, 0, group_stream(w_, first)};
        int64_t begun = 0;  // unit of the row block
        unpack(0);
        for (int64_t item = 0; item < items + 2; ++item) {
            if (item + 1 < items) unpack(item + 1);
            if (item < items) {
                multiply(item, begun);
                if (++begun == units_) begun = 0;
            }
            if (item >= 2) scale(item - 2);
        }
    }

  private:
    // A unit of a row block.
    struct Place {
        int64_t row_block = 0, unit = 0;
        GroupStream stream = {};
    };

    void advance(Place& place) const {
        if (++place.unit < units_) return;
        place.unit = 0;
        place.stream = group_stream(w_, ++place.row_block);
    }

    __attribute__((always_inline)) void unpack(int64_t item) {
        constexpr int kLines = unit_lines(Form::kWeight);
        const uint8_t* const codes = unpacked_.stream.codes + unpacked_.unit * kLines * 64;
#pragma GCC unroll 8
        for (int line = 0; line < kLines; ++line)
            _mm_prefetch(reinterpret_cast<const char*>(codes) + line * 64 + kPrefetchBytes, _MM_HINT_T1);
        unpack_unit<Form::kWeight>(codes, table_, panels_[item % kDepth]);
        advance(unpacked_);
        keep_memory_order();
    }

    __attribute__((always_inline)) void multiply(int64_t item, int64_t unit) {
        const int64_t place = unit * kGroupUnit * kRows;
        int32_t* const products = products_[item % kDepth];
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(6, panels_[item % kDepth], 64);
        _tile_loadd(4, static_cast<const int8_t*>(tile_.codes[0]) + place, kGroupUnit);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(5, static_cast<const int8_t*>(tile_.codes[1]) + place, kGroupUnit);
        _tile_dpbsud(1, 5, 6);
        _tile_stored(0, products, 64);
        _tile_stored(1, products + kRows * kLanes, 64);
        keep_memory_order();
    }

    __attribute__((always_inline)) void scale(int64_t item) {
        const GroupStream& stream = scaled_.stream;
        const int32_t* const products = products_[item % kDepth];
        const float* const offsets = tile_.offsets + scaled_.unit * kRows;
        const __m512 scales = Form::scales(stream, scaled_.unit);
        const __m512 mins = Form::kHasMins ? Form::mins(stream, scaled_.unit) : scales;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            const __m512i high = _mm512_load_si512(products + r * kLanes);
            __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(high, 4), _mm512_load_si512(products + (kRows + r) * kLanes));
            if (!Form::kHasMins) dot = _mm512_add_epi32(dot, broadcast_word(offsets + r));
            parts_[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scales, parts_[r]);
            if (Form::kHasMins) least_[r] = _mm512_fmadd_ps(_mm512_set1_ps(offsets[r]), mins, least_[r]);
        }
        if ((scaled_.unit + 1) % (kSharedColumns / kGroupUnit) == 0 || scaled_.unit + 1 == units_) end_span();
        if (scaled_.unit + 1 == units_) end_block();
        advance(scaled_);
        keep_memory_order();
    }

    void end_span() {
        const GroupStream& stream = scaled_.stream;
        const int64_t span = scaled_.unit / (kSharedColumns / kGroupUnit);
        const __m512 steps = Form::kTwoLevels ? load_halves(stream.steps + span * kLanes) : _mm512_setzero_ps();
        const __m512 min_steps =
            Form::kTwoLevels && Form::kHasMins ? load_halves(stream.min_steps + span * kLanes) : steps;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            __m512 total = parts_[r];
            if (Form::kTwoLevels && Form::kHasMins)
                total = _mm512_fmsub_ps(total, steps, _mm512_mul_ps(least_[r], min_steps));
            else if (Form::kTwoLevels) total = _mm512_mul_ps(total, steps);
            else if (Form::kHasMins) total = _mm512_sub_ps(total, least_[r]);
            sums_[r] = _mm512_fmadd_ps(total, _mm512_set1_ps(tile_.scales[span * kRows + r]), sums_[r]);
            parts_[r] = least_[r] = _mm512_setzero_ps();
        }
    }

    void end_block() {
        const float* const factors = scaled_.stream.factors;
        const __m512 factor = factors ? _mm512_loadu_ps(factors) : _mm512_set1_ps(1.0f);
        for (int r = 0; r < kRows; ++r) {
            const __m512 sum = multiplied(sums_[r], factor);
            if (r < output_.rows) store(w_, sum, scaled_.row_block, output_, r);
            sums_[r] = _mm512_setzero_ps();
        }
    }

    const linear_weight& w_;
    const Tile& tile_;
    const Output& output_;
    const int64_t units_;
    __m512i table_;
    Place unpacked_, scaled_;
    __m512 parts_[kRows], least_[kRows], sums_[kRows];
    alignas(64) int32_t products_[kDepth][2 * kRows * kLanes];  // [high, low][rows][16 outputs]
    alignas(64) uint8_t panels_[kDepth][kQuads * 64];
};

template <class Form>
void rows_of(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    configure_group_tiles(tile.rows);
    if (tile.rows == 8) FewGroups<8, Form>(w, tile, output).run(first, last);
    else FewGroups<16, Form>(w, tile, output).run(first, last);
    _tile_release();
}

// The forms with groups of 32 columns that there are, see linear_pack_groups(); but W4, whose values have 15 bits.
void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    if (first >= last) return;
    constexpr int kSteps = PARLOR_SCALE_STEPS, kHalves = PARLOR_SCALE_F16;
    const auto multiply = [&](auto steps, auto halves) {
        if (has_steps(w)) rows_of<decltype(steps)>(w, tile, first, last, output);
        else rows_of<decltype(halves)>(w, tile, first, last, output);
    };
    if (w.kind == PARLOR_LINEAR_G4)
        return multiply(Form<PARLOR_LINEAR_G4, kSteps, true>{}, Form<PARLOR_LINEAR_G4, kHalves, true>{});
    if (w.kind == PARLOR_LINEAR_G5 && w.zero_kind == PARLOR_ZERO_ONE)
        return rows_of<Form<PARLOR_LINEAR_G5, kHalves, false>>(w, tile, first, last, output);
    if (w.kind == PARLOR_LINEAR_G5)
        return multiply(Form<PARLOR_LINEAR_G5, kSteps, true>{}, Form<PARLOR_LINEAR_G5, kHalves, true>{});
    if (w.scale_kind == PARLOR_SCALE_E8M0)
        return rows_of<Form<PARLOR_LINEAR_T4, PARLOR_SCALE_E8M0, false>>(w, tile, first, last, output);
    multiply(Form<PARLOR_LINEAR_T4, kSteps, false>{}, Form<PARLOR_LINEAR_T4, kHalves, false>{});
}

}  // namespace

LinearKernels few_group_kernels() {
    return {kMaxRows, [](int rows) { return rows <= 8 ? 8 : 16; }, rounded_rows, nullptr, nullptr};
}

}  // namespace amx
}  // namespace parlor
