@echo off
rem The one command: sets everything up the first time, then opens the chat. Arguments go to app.py (start.bat --help).
setlocal
pushd "%~dp0"

if not exist .venv\Scripts\python.exe goto make
.venv\Scripts\python tools\install.py requirements-web.txt
if %errorlevel% == 0 goto run
if %errorlevel% == 1 exit /b 1
rem Else this environment will not do: its Python is gone, too old, or without pip.

:make
set "PYTHON="
call :try python
call :try py
for /f "tokens=1" %%V in ('py --list 2^>nul') do call :try py %%V
if not defined PYTHON (
    echo Parlor needs Python, in a version that README.md names, and none was found. Install it from https://www.python.org and start again.
    exit /b 1
)
echo Making a Python environment in .venv ...
%PYTHON% -m venv --clear .venv
if errorlevel 1 (
    echo The environment could not be made in "%cd%". Move Parlor to a folder that you may write to.
    exit /b 1
)
.venv\Scripts\python tools\install.py requirements-web.txt
if errorlevel 1 exit /b 1

:run
rem Where we were called from: folders may be given from there.
popd
"%~dp0.venv\Scripts\python" "%~dp0app.py" %*
exit /b %errorlevel%

:try
rem Takes the command that is given if it starts a Python that will do, and none was found before.
if defined PYTHON exit /b
%* tools\install.py >nul 2>&1
if %errorlevel% == 0 set "PYTHON=%*"
exit /b
