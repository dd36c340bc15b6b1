# python3 -m venv on the volume: with links and with copies, pip in it, a package of our own built and installed, compiled modules, zip imports, and a
# program that runs in it.
. "$(dirname "$0")/lib.sh"
cd "$T" || fail "cannot enter $T"
export HOME=$K TMPDIR=$T/temporary PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1
mkdir temporary

must "python3 -m venv" "$PYTHON" -m venv env
same "its prefix" "$(env/bin/python -c 'import sys; print(sys.prefix, sys.prefix != sys.base_prefix)')" "$T/env True"
must "pip" env/bin/pip list
must "python3 -m venv --copies --without-pip" "$PYTHON" -m venv --copies --without-pip copies
same "a copied interpreter" "$(copies/bin/python -c 'import sys, os; print(sys.prefix, os.path.islink(sys.executable))')" "$T/copies False"

mkdir -p wheel/greeting wheel/greeting-1.0.dist-info
cat >wheel/greeting/__init__.py <<'END'
import importlib.resources
def greet(name): return importlib.resources.files(__name__).joinpath("words").read_text().strip() + " " + name
def main():
    import sys
    print(greet(sys.argv[1]))
END
echo hello >wheel/greeting/words
printf 'Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n' >wheel/greeting-1.0.dist-info/METADATA
printf 'Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n' >wheel/greeting-1.0.dist-info/WHEEL
printf '[console_scripts]\ngreet = greeting:main\n' >wheel/greeting-1.0.dist-info/entry_points.txt
: >wheel/greeting-1.0.dist-info/RECORD
must "a wheel" "$PYTHON" -c 'import shutil; shutil.make_archive("greeting-1.0-py3-none-any", "zip", "wheel")'
mv greeting-1.0-py3-none-any.zip greeting-1.0-py3-none-any.whl
must "pip install" env/bin/pip install ./greeting-1.0-py3-none-any.whl
same "the installed program" "$(env/bin/greet world)" "hello world"
same "pip list" "$(env/bin/pip list 2>/dev/null | grep greeting | tr -s ' ')" "greeting 1.0"
must "compiled modules" bash -c 'ls env/lib/python3*/site-packages/greeting/__pycache__/__init__.*.pyc'
must "pip uninstall" env/bin/pip uninstall -y greeting
refused "the program after that" env/bin/python -c 'import greeting'
same "an import from a zip archive" "$(PYTHONPATH=$T/greeting-1.0-py3-none-any.whl env/bin/python -c 'import greeting; print(greeting.__file__)')" \
    "$T/greeting-1.0-py3-none-any.whl/greeting/__init__.py"
must "compileall" env/bin/python -m compileall -q -f -j 2 env/lib
must "zipapp" bash -c 'mkdir app && echo "print(\"zipped\")" >app/__main__.py && python3 -m zipapp app -p "$1/env/bin/python" && [ "$(./app.pyz)" = zipped ]' zipapp "$T"
must "activate" bash -c '. env/bin/activate && [ "$(command -v python)" = "$1/env/bin/python" ] && python -c "import ssl, sqlite3, ctypes" && deactivate' activate "$T"
must "a pool of processes" env/bin/python - <<'END'
import concurrent.futures, pathlib
def write(n):
    pathlib.Path(f"pool-{n}").write_text(str(n * n))
    return n
if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        assert sorted(pool.map(write, range(40))) == list(range(40))
    assert sum(int(p.read_text()) for p in pathlib.Path(".").glob("pool-*")) == sum(n * n for n in range(40))
END
must "--upgrade, --clear" bash -c 'python3 -m venv --clear --without-pip env && [ ! -e env/bin/pip ]'
same "nothing left of temporary files" "$(ls -A temporary)" ""
finish
