// Quantized weights unpacked to bf16, scale and zero point in them, as AMX's tiles take them: [pairs of columns][16 outputs][2].
// Split weights are sums of two bf16, high + low: a tile of each for every unit of columns, one behind the other.
//
// Bound by vector instructions: some 35 for 8 columns of 16 outputs, 60 if split. They run beside the tile unit, a step
// between products, so an unpacker can stop after each step.
#pragma once

#include "avx512.h"
#include "float8.h"
#include "tiles.h"

namespace parlor {
namespace amx {

constexpr int64_t kTileWords = 16 * kColumnUnit;

// Two floats of each output as a pair of bf16, halves rounded up.
inline __m512i rounded_pair(__m512 first, __m512 second) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    return upper_words(_mm512_add_epi32(_mm512_castps_si512(first), half),
                       _mm512_add_epi32(_mm512_castps_si512(second), half));
}

// Which columns an unpacker works off: row blocks [first, first + count), then as many from `second` on unless that is
// negative; columns [column, column + columns), multiples of kColumnUnit.
struct Panel {
    int64_t first, second, count, column, columns;
};

// Where an unpacker stands. A step is 8 columns of 16 outputs: four rows of a tile.
template <bool kSplit>
class Walk {
  public:
    static constexpr bool kIsSplit = kSplit;
    static constexpr int kStepColumns = 8;
    static constexpr int kUnitSteps = kColumnUnit / kStepColumns;  // which share their factors

    int64_t steps() const { return left_; }

    // Until the present unit of columns is whole.
    int64_t steps_to_go() const { return kUnitSteps - step_ % kUnitSteps; }

  protected:
    Walk() = default;

    Walk(const linear_weight& w, const Panel& panel, int64_t ahead, uint16_t* target)
        : weight_(&w), target_(target), panel_(panel), ahead_(ahead), block_steps_(panel.columns / kStepColumns),
          left_((panel.second < 0 ? 1 : 2) * panel.count * block_steps_), block_(panel.first) {}

    // Two columns to the next row of the tile.
    __attribute__((always_inline)) void put(__m512 first, __m512 second) {
        if (kSplit) {
            const auto high = [](__m512 value) {
                const __m512i rounded = _mm512_add_epi32(_mm512_castps_si512(value), _mm512_set1_epi32(0x8000));
                return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
            };
            const __m512 high_first = high(first), high_second = high(second);
            const __m512i high_pair = upper_words(_mm512_castps_si512(high_first), _mm512_castps_si512(high_second));
            _mm512_store_si512(target_, high_pair);
            const __m512i low_pair = rounded_pair(_mm512_sub_ps(first, high_first), _mm512_sub_ps(second, high_second));
            _mm512_store_si512(target_ + kTileWords, low_pair);
        } else {
            _mm512_store_si512(target_, rounded_pair(first, second));
        }
        target_ += 2 * kLanes;
    }

    // After one, two or four steps, never across a unit of columns. True if the next row block begins.
    __attribute__((always_inline)) bool ends_block(int64_t steps) {
        left_ -= steps;
        step_ += steps;
        if (kSplit && step_ % kUnitSteps == 0) target_ += kTileWords;
        if (step_ < block_steps_) return false;
        if (++block_ == panel_.first + panel_.count) block_ = panel_.second;
        step_ = 0;
        return left_ > 0;
    }

    const linear_weight* weight_ = nullptr;
    uint16_t* target_ = nullptr;
    Panel panel_ = {};
    int64_t ahead_ = 0;  // bytes from the codes to those that will be wanted next
    int64_t block_steps_ = 0, left_ = 0, block_ = -1, step_ = 0;
};

// The rest of a unit of columns.
template <class Codes>
__attribute__((always_inline)) inline void unpack_unit(Codes& codes) {
    const int64_t count = codes.steps_to_go();
    const typename Codes::Factors factors = codes.factors();
    for (int64_t i = 0; i < count; ++i) codes.step(factors);
    codes.advance(count);
}

template <class Codes>
void unpack_all(Codes& codes) {
    while (codes.steps() > 0) unpack_unit(codes);
}

// Of 4 or 8 bits; the columns come in the order of kPairOrder.
template <int kBits, bool kSplit>
class Unpacker : public Walk<kSplit> {
  public:
    using Base = Walk<kSplit>;
    using Base::kUnitSteps;
    static constexpr int64_t kStepBytes = Base::kStepColumns * kLanes * kBits / 8;

    Unpacker() = default;

    // groups  [padded_k / kColumnUnit] the group of each unit of columns
    Unpacker(const linear_weight& w, const int32_t* groups, const Panel& panel, int64_t ahead, uint16_t* target)
        : Base(w, panel, ahead, target), groups_(groups + panel.column / kColumnUnit) {
        seek();
    }

    // weight = value * scale + offset, where `value` has the code in a float's lower bits.
    struct Factors {
        __m512 scale, offset, upper_offset;
    };

    // Of the next steps, until advance() has made up a unit of columns.
    __attribute__((always_inline)) Factors factors() const {
        const linear_weight& w = *weight_;
        const int64_t index = index_ + groups_[step_ / kUnitSteps] * kLanes;
        const __m512 scale = load_halves(w.scales + index);
        __m512 zero;
        if (w.zero_kind == PARLOR_ZERO_ONE) {
            zero = _mm512_set1_ps(static_cast<float>(w.zero));
        } else if (w.zero_kind == PARLOR_ZERO_F16) {
            zero = load_halves(static_cast<const uint16_t*>(w.zeros) + index);
        } else {
            const uint8_t* const bytes = static_cast<const uint8_t*>(w.zeros) + index;
            zero = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
        }
        const __m512 offset = _mm512_sub_ps(_mm512_set1_ps(kBits == 4 ? -128.0f : -32768.0f), zero);
        const __m512 upper_offset = _mm512_sub_ps(offset, _mm512_set1_ps(kBits == 4 && !kSplit ? 0x4300 / 65536.0f : 0.0f));
        return {scale, _mm512_mul_ps(offset, scale), _mm512_mul_ps(upper_offset, scale)};
    }

    __attribute__((always_inline)) void step(const Factors& f) {
        _mm_prefetch(reinterpret_cast<const char*>(codes_) + ahead_, _MM_HINT_T1);
        if (kBits == 4) step_of_4_bits(f);
        else step_of_8_bits(f);
        codes_ += kStepBytes;
    }

    __attribute__((always_inline)) void advance(int64_t steps) {
        if (this->ends_block(steps)) seek();
    }

  private:
    using Base::ahead_, Base::block_, Base::panel_, Base::put, Base::step_, Base::weight_;

    // 128 + code is a bf16 number: 0x4300 + code. Of a pair the lower one is shifted up to a float; the upper one is taken
    // with the lower as additional bits, (0x4300 + lower) / 2^16 of a code, of which all but lower / 2^16 is subtracted; if
    // split it is taken alone.
    __attribute__((always_inline)) void step_of_4_bits(const Factors& f) {
        const __m512i nibbles = _mm512_set1_epi32(0x000F000F), base = _mm512_set1_epi32(0x43004300);
        const __m512i line = _mm512_loadu_si512(codes_);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const __m512i pair = masked_or(_mm512_srli_epi32(line, 4 * i), nibbles, base);
            const __m512 lower = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), f.scale, f.offset);
            const __m512i upper = kSplit ? _mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))) : pair;
            put(lower, _mm512_fmadd_ps(_mm512_castsi512_ps(upper), f.scale, f.upper_offset));
        }
    }

    // 0x47000000 + 256 * code is the float 32,768 + code.
    __attribute__((always_inline)) void step_of_8_bits(const Factors& f) {
        const __m512i bytes = _mm512_set1_epi32(0x0000FF00), base = _mm512_set1_epi32(0x47000000);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const __m512i line = _mm512_loadu_si512(codes_ + half * 64);
            const auto column = [&](__m512i shifted) {
                return _mm512_fmadd_ps(_mm512_castsi512_ps(masked_or(shifted, bytes, base)), f.scale, f.offset);
            };
            put(column(_mm512_slli_epi32(line, 8)), column(_mm512_srli_epi32(line, 8)));
            put(column(line), column(_mm512_srli_epi32(line, 16)));
        }
    }

    static __m512i masked_or(__m512i a, __m512i mask, __m512i b) { return _mm512_ternarylogic_epi32(a, mask, b, 0xEA); }

    void seek() {
        const linear_weight& w = *weight_;
        codes_ = static_cast<const uint8_t*>(w.codes) + block_ * row_block_bytes(w) + panel_.column * kLanes * kBits / 8;
        index_ = block_ * w.num_groups * kLanes;
    }

    const int32_t* groups_ = nullptr;
    const uint8_t* codes_ = nullptr;
    int64_t index_ = 0;
};

// The same of floats of 8 bits.
template <bool kSplit>
class Float8Unpacker : public Walk<kSplit> {
  public:
    using Base = Walk<kSplit>;
    static constexpr int64_t kStepBytes = Base::kStepColumns * kLanes;

    Float8Unpacker() = default;

    Float8Unpacker(const linear_weight& w, const int32_t*, const Panel& panel, int64_t ahead, uint16_t* target)
        : Base(w, panel, ahead, target) {
        seek();
    }

    struct Factors {
        __m512 scale;
    };

    __attribute__((always_inline)) Factors factors() const {
        const int64_t group = (panel_.column + step_ * Base::kStepColumns) / weight_->group_size;
        const int64_t last = weight_->num_groups - 1;  // columns behind k are zeros
        const __m512 factors = _mm512_loadu_ps(weight_->factors + block_ * kLanes);
        return {_mm512_mul_ps(factors, _mm512_set1_ps(block_scale(*weight_, block_, group < last ? group : last)))};
    }

    // Lines of columns 0 and 1, 2 and 3: the tiles' pairs are columns 0 and 2, 1 and 3.
    __attribute__((always_inline)) void step(const Factors& f) {
        _mm_prefetch(reinterpret_cast<const char*>(values_) + ahead_, _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(values_) + ahead_ + 64, _MM_HINT_T1);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const __m512i line = _mm512_loadu_si512(values_ + half * 64);
            const __m512i even = e4m3_as_halves(_mm512_slli_epi16(line, 8));
            const __m512i odd =
                e4m3_as_halves(_mm512_and_si512(line, _mm512_set1_epi16(static_cast<int16_t>(0xFF00))));
            const auto put_pair = [&](__m512i halves) {
                put(_mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(halves)), f.scale),
                    _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1)), f.scale));
            };
            put_pair(even);
            put_pair(odd);
        }
        values_ += kStepBytes;
    }

    __attribute__((always_inline)) void advance(int64_t steps) {
        if (this->ends_block(steps)) seek();
    }

  private:
    using Base::ahead_, Base::block_, Base::panel_, Base::put, Base::step_, Base::weight_;

    void seek() {
        values_ = static_cast<const uint8_t*>(weight_->codes) + block_ * row_block_bytes(*weight_) + panel_.column * kLanes;
    }

    const uint8_t* values_ = nullptr;
};

}  // namespace amx
}  // namespace parlor
