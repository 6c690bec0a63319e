// Runs a model for a number of steps and prints what comes out: for the counts of tools/check_arm.sh
// and to compare processors.
#include <fastltc/fastltc.hpp>

#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int count, char** words) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s MODEL STREAMS STEPS\n", words[0]);
    return 2;
  }
  const fastltc::Network network(words[1]);
  const size_t streams = static_cast<size_t>(std::atoi(words[2]));
  fastltc::Session session(network, streams);
  std::vector<float> x(streams * network.inputs()), y(streams * network.outputs());
  const int steps = std::atoi(words[3]);
  for (int t = 0; t < steps; ++t) {
    for (size_t k = 0; k < x.size(); ++k) {
      x[k] =
          static_cast<float>(static_cast<int>((k * 7 + static_cast<size_t>(t) * 5) % 23) - 11) / 8;
    }
    session.step(x.data(), 0.25f + 0.25f * static_cast<float>(t % 3), y.data());
  }
  for (const float value : y) std::printf("%.9g ", static_cast<double>(value));
  std::printf("\n");
}
