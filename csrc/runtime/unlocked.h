// Long work without the interpreter lock.
#pragma once

#include <Python.h>

#include <chrono>
#include <thread>

namespace fastltc::runtime {

// Lets other threads run Python as long as this lives.
class Unlocked {
 public:
  explicit Unlocked(bool unlock = true) : state_(unlock ? PyEval_SaveThread() : nullptr) {}
  ~Unlocked() {
    if (state_ == nullptr) return;
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      // The interpreter has ended meanwhile, and until Python 3.14 ends this thread by unwinding
      // its stack. Neither a destructor can let that pass, nor can the frames above release their
      // Python objects without the lock. So the thread waits for the end of the process, as
      // Python 3.14 has it do.
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace fastltc::runtime
