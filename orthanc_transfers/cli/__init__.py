"""The command line: looks at a configuration, starts and watches transfers of a running Orthanc."""
