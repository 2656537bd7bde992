/** Dark or light: as the system, or as chosen here. */
import { ref, watch } from 'vue'

export type Theme = 'auto' | 'light' | 'dark'
const KEY = 'transfers.theme'
const dark = matchMedia('(prefers-color-scheme: dark)')
const saved = localStorage.getItem(KEY)

export const theme = ref<Theme>(saved === 'light' || saved === 'dark' ? saved : 'auto')

export function applyTheme(): void {
  const wanted = theme.value === 'auto' ? (dark.matches ? 'dark' : 'light') : theme.value
  document.documentElement.setAttribute('data-bs-theme', wanted)
}

watch(theme, (value) => {
  localStorage.setItem(KEY, value)
  applyTheme()
})
dark.addEventListener('change', applyTheme)
