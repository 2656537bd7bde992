import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import vue from '@vitejs/plugin-vue'
import { defineConfig, type Plugin } from 'vite'

const here = fileURLToPath(new URL('.', import.meta.url))

/** Writes of what sources the page was built, so that a test without Node sees a build that was forgotten. */
function sources(): Plugin {
  return {
    name: 'sources',
    generateBundle() {
      const names = (readdirSync(here + 'src', { recursive: true, withFileTypes: true }) as any[])
        .filter((entry) => entry.isFile())
        .map((entry) => (entry.parentPath ?? entry.path).slice(here.length) + '/' + entry.name)
      const hash = createHash('sha256')
      for (const name of [...names, 'index.html', 'package-lock.json', 'package.json', 'vite.config.ts'].sort()) {
        hash.update(name + '\n')
        hash.update(readFileSync(here + name))
      }
      this.emitFile({ type: 'asset', fileName: 'sources.sha256', source: hash.digest('hex') + '\n' })
    },
  }
}

export default defineConfig({
  base: './',
  plugins: [vue(), sources()],
  build: {
    outDir: process.env.PAGE_OUT ?? '../app',
    emptyOutDir: true,
    // The same names, and so the same files, on every machine; no inline script, which the page's policy forbids.
    assetsInlineLimit: 0,
    modulePreload: false,
    target: 'es2020',
    reportCompressedSize: false,
  },
})
