/**
 * A plugin of Orthanc that does nothing but exist under the name "transfers".
 *
 * Orthanc's own list of plugins names shared libraries only, and Orthanc Explorer 2 looks there for "transfers" before
 * it shows its menu. All that the menu then asks for is served by orthanc_transfers, in Python.
 *
 * It also keeps the context that Orthanc hands to every plugin, for host/native/context.py.
 *
 * Needs no header and no C library: the four functions are those of Orthanc's plugin SDK, which any version looks for.
 **/

#define EXPORTED __attribute__((visibility("default")))

EXPORTED const void *orthanc_transfers_context = 0;

EXPORTED int OrthancPluginInitialize(const void *context)
{
  orthanc_transfers_context = context;
  return 0;
}

EXPORTED void OrthancPluginFinalize(void)
{
  orthanc_transfers_context = 0;
}

EXPORTED const char *OrthancPluginGetName(void)
{
  return "transfers";
}

EXPORTED const char *OrthancPluginGetVersion(void)
{
  return VERSION;
}
