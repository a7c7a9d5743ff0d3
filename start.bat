@echo off
rem The one command: sets everything up the first time, then opens the chat. Arguments go to app.py (start.bat --help).
setlocal
cd /d "%~dp0"

if exist .venv\Scripts\python.exe goto install
set "PYTHON="
for %%V in (3.13 3.12 3.11 3.10) do call :try py -%%V
call :try python
if not defined PYTHON (
    echo Parlor needs Python 3.10 to 3.13, and none was found. Install it from https://www.python.org and start again.
    exit /b 1
)
echo Making a Python environment in .venv ...
%PYTHON% -m venv .venv
if errorlevel 1 (
    echo The environment could not be made in "%cd%". Move Parlor to a folder that you may write to.
    exit /b 1
)

:install
fc /b requirements-web.txt .venv\installed-requirements-web.txt >nul 2>&1
if not errorlevel 1 goto run
echo Installing requirements-web.txt, the first time takes a few minutes ...
.venv\Scripts\python -m pip install --quiet --disable-pip-version-check -r requirements-web.txt
if errorlevel 1 (
    echo Installing requirements-web.txt failed; the lines above say why. Without internet it cannot work the first time.
    exit /b 1
)
copy /y requirements-web.txt .venv\installed-requirements-web.txt >nul

:run
.venv\Scripts\python app.py %*
exit /b %errorlevel%

:try
rem Takes the command that is given if it starts a Python that will do, and none was found before.
if defined PYTHON exit /b
%* -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))" >nul 2>&1
if %errorlevel% == 0 set "PYTHON=%*"
exit /b
