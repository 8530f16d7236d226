// Answers with the package in this folder by ExecuTorch's C++ runtime, without mapsto. CMakeLists.txt beside it builds it.
//
//     run PACKAGE predict photo.pgm ...      // a line of JSON for each sample: its class and scores
//     run PACKAGE adapt examples/            // of a learner: examples/CLASS/FILE; predict answers with these classes from then on
//
// An image is a PGM or PPM file of 8 bits; a network that takes numbers as they are reads a text file of them, one sample.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

struct Json {  // as much of it as manifests and heads hold
  std::map<std::string, Json> members;
  std::vector<Json> items;
  std::string text;
  double number = 0;
  bool null = false;
  const Json& operator[](const std::string& name) const {
    auto found = members.find(name);
    if (found == members.end()) throw std::runtime_error("the manifest or the head lacks " + name);
    return found->second;
  }
};

class JsonReader {
 public:
  explicit JsonReader(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path.string() + " cannot be read");
    text_.assign(std::istreambuf_iterator<char>(file), {});
  }
  Json read() {
    Json value;
    if (const char first = next(); first == '{' || first == '[') {
      for (++at_; next() != '}' && next() != ']';) {
        std::string name;
        if (first == '{') {
          name = string();
          next(), ++at_;  // the colon
        }
        Json part = read();
        if (first == '{') value.members[name] = part; else value.items.push_back(part);
        if (next() == ',') ++at_;
      }
      ++at_;
    } else if (first == '"') {
      value.text = string();
    } else {
      const size_t end = text_.find_first_of(",]} \t\r\n", at_);
      const std::string word = text_.substr(at_, end - at_);
      at_ = std::min(end, text_.size());
      value.null = word == "null";
      if (word != "null" && word != "true" && word != "false") value.number = std::stod(word);
    }
    return value;
  }

 private:
  std::string text_;
  size_t at_ = 0;
  char next() {
    at_ = text_.find_first_not_of(" \t\r\n", at_);
    if (at_ == std::string::npos) throw std::runtime_error("broken JSON");
    return text_[at_];
  }
  std::string string() {
    std::string found;
    for (next(), ++at_; text_.at(at_) != '"'; ++at_) {
      if (text_[at_] != '\\') { found += text_[at_]; continue; }
      const char sign = text_.at(++at_);
      const size_t place = std::string("bfnrt").find(sign);
      if (sign == 'u') throw std::runtime_error("an escaped sign in JSON that this runner does not read");
      found += place == std::string::npos ? sign : "\b\f\n\r\t"[place];
    }
    ++at_;
    return found;
  }
};

std::string json_text(const std::string& text) {
  std::string found = "\"";
  for (const char sign : text) {
    if (sign == '"' || sign == '\\') found += '\\';
    const size_t place = std::string("\b\f\n\r\t").find(sign);
    found += place == std::string::npos ? std::string(1, sign) : std::string("\\") + "bfnrt"[place];
  }
  return found + '"';
}

std::string numbers(const Vector& values) {
  std::ostringstream found;
  found.precision(17);
  for (size_t i = 0; i < values.size(); ++i) found << (i ? ", " : "[") << values[i];
  return found.str() + "]";
}

// One axis of rows x columns x channels bilinearly with antialiasing, rounded to whole numbers, as in training.
Vector resized(const Vector& pixels, int rows, int columns, int channels, int size) {
  Vector made(static_cast<size_t>(rows) * size * channels);
  const double scale = double(columns) / size, reach = std::max(scale, 1.0);
  for (int x = 0; x < size; ++x) {
    const double center = (x + 0.5) * scale;
    const int first = std::max(0, int(center - reach + 0.5)), end = std::min(columns, int(center + reach + 0.5));
    Vector weights;
    for (int i = first; i < end; ++i) weights.push_back(std::max(0.0, 1 - std::abs((i - center + 0.5) / reach)));
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (int y = 0; y < rows; ++y)
      for (int c = 0; c < channels; ++c) {
        double sum = 0;
        for (int i = first; i < end; ++i) sum += weights[i - first] * pixels[(size_t(y) * columns + i) * channels + c];
        made[(size_t(y) * size + x) * channels + c] = std::clamp(std::floor(sum / total + 0.5), 0.0, 255.0);
      }
  }
  return made;
}

Vector transposed(const Vector& pixels, int rows, int columns, int channels) {
  Vector made(pixels.size());
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x)
      for (int c = 0; c < channels; ++c)
        made[(size_t(x) * rows + y) * channels + c] = pixels[(size_t(y) * columns + x) * channels + c];
  return made;
}

std::vector<float> image(const fs::path& path, const Json& before) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int header[3] = {0, 0, 0};  // width, height, the greatest value
  file >> kind;
  for (int& value : header)
    while (!(file >> value) && !file.eof()) {  // a comment
      file.clear();
      file.ignore(1 << 20, '\n');
    }
  const int width = header[0], height = header[1], from = kind == "P6" ? 3 : 1;
  if ((kind != "P5" && kind != "P6") || header[2] != 255 || width < 1 || height < 1)
    throw std::runtime_error("a PGM or PPM file of 8 bits is wanted: convert photo.png photo.pgm");
  file.get();
  std::string bytes(size_t(width) * height * from, '\0');
  if (!file.read(bytes.data(), std::streamsize(bytes.size()))) throw std::runtime_error("the file is truncated");
  const int channels = int(before["channels"].number), depth = channels == 3 ? 3 : 1;
  Vector pixels;
  for (size_t i = 0; i < size_t(width) * height; ++i) {
    const auto* p = reinterpret_cast<const unsigned char*>(&bytes[i * from]);
    const int grey = from == 1 ? p[0] : (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16;
    for (int c = 0; c < depth; ++c) pixels.push_back(depth == 1 ? grey : p[from == 3 ? c : 0]);
  }
  const int rows = int(before["size"].items[0].number), columns = int(before["size"].items[1].number);
  int tall = rows, wide = columns;  // what the picture is scaled to
  const bool cut = before.members.count("fit") && before["fit"].text == "crop";
  const int covered[2] = {int(std::lround(rows * 8.0 / 7)), int(std::lround(columns * 8.0 / 7))};
  if (cut) {  // the smallest picture that covers 8/7 of the size, and of that the middle
    const double factor = std::max(double(covered[0]) / height, double(covered[1]) / width);
    tall = std::max(covered[0], int(std::nearbyint(height * factor)));
    wide = std::max(covered[1], int(std::nearbyint(width * factor)));
  }
  if (width != wide) pixels = resized(pixels, height, width, depth, wide);
  if (height != tall)
    pixels = transposed(resized(transposed(pixels, height, wide, depth), wide, height, depth, tall), wide, tall, depth);
  if (cut) {
    const int top = (tall - covered[0]) / 2 + (covered[0] - rows) / 2, left = (wide - covered[1]) / 2 + (covered[1] - columns) / 2;
    Vector middle(size_t(rows) * columns * depth);
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns * depth; ++x)
        middle[size_t(y) * columns * depth + x] = pixels[(size_t(top + y) * wide + left) * depth + x];
    pixels = middle;
  }
  double edge = 0;
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x)
      for (int c = 0; c < depth; ++c)
        if (y == 0 || y == rows - 1 || x == 0 || x == columns - 1) edge += pixels[(size_t(y) * columns + x) * depth + c];
  const bool inverted = before["ink"].text == "light" && edge > 127.5 * depth * (2 * columns + 2 * std::max(rows - 2, 0));
  std::vector<float> made;
  for (int c = 0; c < channels; ++c) {
    const auto of = [&](const char* name) {
      const auto& values = before[name].items;
      return float(values[values.size() == 1 ? 0 : size_t(c)].number);
    };
    for (size_t i = 0; i < size_t(rows) * columns; ++i) {
      const double value = pixels[i * depth + (depth == 3 ? c : 0)];
      made.push_back((float(inverted ? 255 - value : value) / 255.0f - of("mean")) / of("std"));
    }
  }
  return made;
}

struct Package {
  Json manifest;
  executorch::extension::Module module;
  explicit Package(const fs::path& folder) : manifest(JsonReader(folder / "manifest.json").read()), module((folder / "model.pte").string()) {}

  Vector outputs(const fs::path& path) {  // of one sample
    const Json &signature = manifest["signature"], &before = signature["preprocessing"], &spec = signature["inputs"].items[0];
    if (before["kind"].text == "text" || before.members.count("columns") || spec["dtype"].text != "float32")
      throw std::runtime_error("this runner reads images and float32 arrays; tables, texts and ids need mapsto-runtime");
    std::vector<executorch::aten::SizesType> shape{1};
    size_t count = 1;
    for (size_t i = 1; i < spec["shape"].items.size(); ++i) {
      shape.push_back(int(spec["shape"].items[i].number));
      count *= size_t(shape.back());
    }
    std::vector<float> x;
    if (before["kind"].text == "image") {
      x = image(path, before);
    } else {
      std::ifstream file(path);
      x.assign(std::istream_iterator<float>(file), {});
      if (x.size() != count) throw std::runtime_error("a text file of " + std::to_string(count) + " numbers is wanted");
    }
    const auto result = module.forward(executorch::extension::from_blob(x.data(), shape));
    if (!result.ok()) throw std::runtime_error("ExecuTorch cannot run model.pte");
    const auto tensor = result->at(0).toTensor();
    const auto* y = tensor.const_data_ptr<float>();
    return Vector(y, y + tensor.numel());
  }
  std::string model() const { return manifest["files"][manifest["model"].text]["sha256"].text; }
};

double dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// A head of embeddings and their classes: weight and bias, as the learner in mapsto makes it.
std::pair<Matrix, Vector> head(Matrix x, const std::vector<size_t>& labels, size_t classes, const Json& rule) {
  const size_t samples = x.size(), size = x[0].size();
  const double scale = rule["scale"].number;
  Matrix weight(classes, Vector(size, 0.0));
  Vector bias(classes, 0.0);
  if (rule["method"].text == "ridge") {  // W = X'(XX' + penalty I)^-1 Y with a column of ones, by Cholesky's factors
    for (auto& row : x) row.push_back(1.0);
    Matrix factor(samples, Vector(samples, 0.0));
    for (size_t i = 0; i < samples; ++i)
      for (size_t j = 0; j <= i; ++j) {
        double value = dot(x[i], x[j]) + (i == j ? rule["penalty"].number : 0.0);
        for (size_t k = 0; k < j; ++k) value -= factor[i][k] * factor[j][k];
        factor[i][j] = i == j ? std::sqrt(value) : value / factor[j][j];
      }
    for (size_t c = 0; c < classes; ++c) {
      Vector part(samples);
      for (size_t i = 0; i < samples; ++i) {
        part[i] = labels[i] == c;
        for (size_t k = 0; k < i; ++k) part[i] -= factor[i][k] * part[k];
        part[i] /= factor[i][i];
      }
      for (size_t i = samples; i-- > 0;) {
        for (size_t k = i + 1; k < samples; ++k) part[i] -= factor[k][i] * part[k];
        part[i] /= factor[i][i];
      }
      bias[c] = rule["bias"].number;
      for (size_t i = 0; i < samples; ++i) {
        for (size_t d = 0; d < size; ++d) weight[c][d] += scale * part[i] * x[i][d];
        bias[c] += scale * part[i];
      }
    }
    return {weight, bias};
  }
  const bool cosine = rule["distance"].text == "cosine";
  double length = 0;
  Vector counts(classes, 0.0);
  for (size_t i = 0; i < samples; ++i) {
    const double norm = std::max(std::sqrt(dot(x[i], x[i])), 1e-12);
    length += norm / double(samples);
    counts[labels[i]] += 1;
    for (size_t d = 0; d < size; ++d) weight[labels[i]][d] += cosine ? x[i][d] / norm : x[i][d];
  }
  for (size_t c = 0; c < classes; ++c) {
    for (double& value : weight[c]) value /= counts[c];
    const double square = dot(weight[c], weight[c]);
    if (!cosine) bias[c] = -scale * square;
    for (double& value : weight[c]) value *= 2 * scale / (cosine ? std::max(std::sqrt(square), 1e-12) * length : 1.0);
  }
  return {weight, bias};
}

void adapt(Package& package, const fs::path& examples, const fs::path& kept) {
  if (!package.manifest.members.count("adaptation") || !package.manifest["adaptation"].members.count("head"))
    throw std::runtime_error("this package holds no prototype or ridge learner to adapt");
  const auto sorted = [](const fs::path& folder) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().filename().string()[0] != '.') found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    return found;
  };
  std::vector<std::string> classes;
  std::vector<size_t> labels;
  Matrix features;
  for (const auto& folder : sorted(examples)) {
    if (!fs::is_directory(folder)) continue;
    const size_t before = labels.size();
    for (const auto& path : sorted(folder)) {
      features.push_back(package.outputs(path));
      labels.push_back(classes.size());
    }
    if (labels.size() == before) throw std::runtime_error(folder.string() + " holds no example");
    classes.push_back(folder.filename().string());
  }
  if (classes.size() < 2) throw std::runtime_error("folders of two classes or more are wanted");
  const auto made = head(features, labels, classes.size(), package.manifest["adaptation"]["head"]);
  std::ofstream file(kept);
  file << "{\"model\": " << json_text(package.model()) << ", \"bias\": " << numbers(made.second);
  for (size_t c = 0; c < classes.size(); ++c) file << (c ? ", " : ", \"classes\": [") << json_text(classes[c]);
  for (size_t c = 0; c < classes.size(); ++c) file << (c ? ", " : "], \"weight\": [") << numbers(made.first[c]);
  file << "]}\n";
  if (!file) throw std::runtime_error(kept.string() + " cannot be written");
}

void predict(Package& package, const fs::path& path, const fs::path& kept) {
  const Json& signature = package.manifest["signature"];
  Vector scores = package.outputs(path);
  std::vector<std::string> classes;
  std::string kind = signature.members.count("answers") ? signature["answers"].text : "classes";
  const bool adapted = package.manifest.members.count("adaptation") && fs::exists(kept);
  const Json layer = adapted ? JsonReader(kept).read() : Json{};
  for (const Json& name : (adapted ? layer : signature)["classes"].items) classes.push_back(name.text);
  if (adapted) {
    if (layer["model"].text != package.model()) throw std::runtime_error("the head was made for another package: run adapt again");
    const Vector features = scores;
    scores.clear();
    for (size_t c = 0; c < classes.size(); ++c) {
      scores.push_back(layer["bias"].items[c].number);
      for (size_t d = 0; d < features.size(); ++d) scores[c] += layer["weight"].items[c].items[d].number * features[d];
    }
  }
  if (classes.empty()) throw std::runtime_error("it gives embeddings: run adapt first");
  if (scores.size() != classes.size()) throw std::runtime_error("it gives maps: they need mapsto-runtime");
  if (kind == "classes") {
    const double most = *std::max_element(scores.begin(), scores.end());
    for (double& score : scores) score = std::exp(score - most);
    const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (double& score : scores) score /= total;
  } else if (kind == "labels") {
    for (double& score : scores) score = 1 / (1 + std::exp(-score));
  }
  std::vector<size_t> order(classes.size());
  std::iota(order.begin(), order.end(), size_t(0));
  if (kind != "values") std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  std::string label, rows;
  char text[32];
  for (const size_t c : order) {
    std::snprintf(text, sizeof text, "%.9g", scores[c]);
    rows += (rows.empty() ? "" : ", ") + json_text(classes[c]) + ": " + text;
    if (kind == "labels" && scores[c] >= 0.5) label += (label.empty() ? "" : ", ") + classes[c];
  }
  if (kind == "classes") label = classes[order[0]];
  const std::string said = kind == "values" ? "null" : json_text(kind == "labels" && label.empty() ? "none" : label);
  std::cout << "{\"file\": " << json_text(path.string()) << ", \"index\": 0, \"label\": " << said << ", \"scores\": {" << rows << "}}\n";
}

int main(int count, char** words) {
  const std::vector<std::string> given(words + 1, words + count);
  if (given.size() < 3 || (given[1] != "predict" && given[1] != "adapt")) {
    std::cerr << "usage: run PACKAGE predict FILE... | run PACKAGE adapt FOLDER\n";
    return 2;
  }
  const fs::path folder = fs::canonical(given[0]), kept = folder.string() + ".head.json";  // beside the package
  int failed = 0;
  try {
    Package package(folder);
    if (given[1] == "adapt") return adapt(package, given[2], kept), 0;
    for (size_t i = 2; i < given.size(); ++i) try {
        predict(package, given[i], kept);
      } catch (const std::exception& error) {
        std::cerr << given[i] << ": " << error.what() << "\n";
        failed = 1;
      }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return failed;
}
