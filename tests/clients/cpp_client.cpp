// A client of fastadam in C++: a Python extension whose class keeps options, states and the count of steps.
// tests/adapters/test_embedding.py builds it with all warnings as errors, and compares it with the Python class.
#include <fastadam.h>

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

class Adam {
public:
    Adam(std::int64_t n, double lr) : m_(n), v_(n) {
        fastadam_adam_defaults(&options_, sizeof options_);
        options_.lr = lr;
        char reason[200];
        if (fastadam_adam_check(&options_, reason, sizeof reason)) throw std::invalid_argument(reason);
    }

    void step(double *p, const double *g) {
        const int code = fastadam_adam_f64(&options_, ++t_, std::int64_t(m_.size()), p, g, m_.data(), v_.data());
        if (code) throw std::invalid_argument("fastadam_adam_f64 returned " + std::to_string(code));
    }

private:
    fastadam_options options_;
    std::int64_t t_ = 0;
    std::vector<double> m_, v_;
};

// descend(x, steps, lr): minimize the sum of x**2, doubles, in place
PyObject *descend(PyObject *, PyObject *args) {
    Py_buffer x;
    int steps;
    double lr;
    if (!PyArg_ParseTuple(args, "w*id", &x, &steps, &lr)) return nullptr;
    const std::unique_ptr<Py_buffer, void (*)(Py_buffer *)> held(&x, PyBuffer_Release);
    const std::int64_t n = x.len / std::int64_t(sizeof(double));
    double *const p = static_cast<double *>(x.buf);
    try {
        Adam adam(n, lr);
        std::vector<double> g(n);
        for (int t = 0; t < steps; t++) {
            for (std::int64_t i = 0; i < n; i++) g[i] = 2 * p[i];
            adam.step(p, g.data());
        }
    } catch (const std::bad_alloc &) {
        return PyErr_NoMemory();
    } catch (const std::exception &error) {
        PyErr_SetString(PyExc_ValueError, error.what());
        return nullptr;
    }
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {{"descend", descend, METH_VARARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "cpp_client", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_cpp_client() {
    if (import_fastadam() < 0) return nullptr;
    return PyModule_Create(&definition);
}
