// Memory of many arrays with one lifetime: taken once, when something is prepared, and freed with
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace fastltc::cpu::FASTLTC_ISA {

class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    while (newest_ != nullptr) {
      Header* const next = newest_->next;
      ::operator delete(newest_, std::align_val_t{kLine});
      newest_ = next;
    }
  }

  // Zeros, aligned to a cache line and sharing none with another array.
  template <typename T>
  T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + kLine - 1) / kLine * kLine;
    char* const block = static_cast<char*>(::operator new(kLine + bytes, std::align_val_t{kLine}));
    newest_ = ::new (block) Header{newest_};
    char* const data = block + kLine;
    for (size_t k = 0; k < bytes; ++k) data[k] = 0;
    return reinterpret_cast<T*>(data);
  }

 private:
  static constexpr size_t kLine = 64;
  struct Header {
    Header* next;
  };
  Header* newest_ = nullptr;
};

}  // namespace fastltc::cpu::FASTLTC_ISA
