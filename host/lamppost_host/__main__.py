from lamppost_host.cli import main

main()
